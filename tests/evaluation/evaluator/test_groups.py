"""Intervals of an evaluation: over groups where rows name one, and none of a p-value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import amnesis
from amnesis.contracts import EvaluationSettings, Subject
from amnesis.data.templates import Template
from amnesis_evaluation.benchmarks.sets import SetsBenchmark
from amnesis_evaluation.evaluator.bootstrap import Bootstrap


@pytest.fixture
def subject(exact_llama: Any, tiny_tokenizer: Any) -> Subject:
    return Subject(exact_llama, tiny_tokenizer, Template())


def of_authors(rows: list[dict[str, Any]], *authors: str) -> list[dict[str, Any]]:
    return [{**row, "author": author} for row, author in zip(rows, authors, strict=True)]


def test_rows_that_name_their_group_are_drawn_with_it(
    subject: Subject, rich_rows: list[dict[str, Any]]
) -> None:
    forget = of_authors(rich_rows[:4], "a", "a", "b", "b")
    own = amnesis.create("benchmark", "own", forget=forget, retain=rich_rows[4:])
    settings = EvaluationSettings(metrics=("probability", "perplexity"), bootstrap=200)
    evaluated = own.evaluate(subject, settings)
    values = np.array([e["value"] for e in evaluated.examples if e["set"] == "forget"])
    groups = [e["group"] for e in evaluated.examples if e["set"] == "forget"]
    assert groups == ["a", "a", "b", "b"]
    assert {e["group"] for e in evaluated.examples if e["set"] == "retain"} == {None}
    bootstrap = Bootstrap(200)
    ends = bootstrap.of_mean(values, "share", groups)
    assert evaluated.intervals["forget/probability"] == ends != bootstrap.of_mean(values, "share")
    unnamed = amnesis.create("benchmark", "own", forget=rich_rows[:4], retain=rich_rows[4:])
    alone = unnamed.evaluate(subject, settings).intervals
    assert evaluated.intervals["forget/perplexity"] != alone["forget/perplexity"]
    assert evaluated.intervals["retain/perplexity"] == alone["retain/perplexity"]


def test_a_sets_name_may_have_a_slash(subject: Subject, rich_rows: list[dict[str, Any]]) -> None:
    rows = of_authors(rich_rows[:4], "a", "a", "b", "b")

    class Named(SetsBenchmark):
        formula = source = "of this test"
        name: str

        def sets(self) -> dict[str, Any]:
            return {self.name: rows}

    settings = EvaluationSettings(metrics=("perplexity", "probability"), bootstrap=50)
    plain = Named(name="forget").evaluate(subject, settings).intervals
    slashed = Named(name="of/two").evaluate(subject, settings).intervals
    assert slashed == {key.replace("forget", "of/two"): ends for key, ends in plain.items()}
    assert len(plain) == 2
    one = settings.model_copy(update={"metrics": ("of/two/perplexity",)})
    assert set(Named(name="of/two").evaluate(subject, one).values) == {"of/two/perplexity"}


def test_one_group_has_no_interval_and_says_so(
    subject: Subject, rich_rows: list[dict[str, Any]]
) -> None:
    forget = of_authors(rich_rows[:3], "a", "a", "a")
    own = amnesis.create("benchmark", "own", forget=forget, retain=rich_rows[3:])
    settings = EvaluationSettings(metrics=("probability", "perplexity"), bootstrap=20)
    evaluated = own.evaluate(subject, settings)
    assert set(evaluated.intervals) == {"retain/probability", "retain/perplexity"}
    assert evaluated.notes == [
        "set 'forget' has no intervals: its rows are all of one group, 'a', and nothing tells how "
        "far another would differ"
    ]
    quiet = settings.model_copy(update={"bootstrap": 0})
    assert own.evaluate(subject, quiet).notes == []


def test_a_p_value_has_no_interval_but_other_derived_metrics_do(
    subject: Subject, rich_rows: list[dict[str, Any]]
) -> None:
    sets = {"forget": rich_rows[:3], "retain": rich_rows[3:5], "holdout": rich_rows[5:]}
    own = amnesis.create("benchmark", "own", **sets)
    settings = EvaluationSettings(metrics=("mia_loss", "truth_ratio"), bootstrap=20)
    first = own.evaluate(subject, settings)
    asked = settings.model_copy(update={"metrics": ("mia_loss", "forget_quality")})
    evaluated = own.evaluate(subject, asked, retrained=first)
    assert evaluated.values["forget_quality"] == 1
    assert "mia_loss" in evaluated.intervals
    assert "forget_quality" not in evaluated.intervals
    assert evaluated.notes == []
