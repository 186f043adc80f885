"""A recipe's goal: what is evaluated for it, and what is written of how it came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import amnesis
from amnesis.errors import RecipeError
from amnesis.runs.preflight import Prepared, prepare
from amnesis.runs.recipe import Recipe
from amnesis.runs.results import Results

GOAL = {"forget/probability": {"below": 0.1}}


@pytest.fixture
def document(tiny_folder: Path, qa_rows: Any) -> dict[str, Any]:
    return {
        "model": str(tiny_folder),
        "objective": "ga",
        "regularizer": "nll",
        "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
        "until": GOAL,
    }


def prepared(document: dict[str, Any], **changes: Any) -> Prepared:
    return prepare(Recipe.parse({**document, **changes}), device="cpu")


def along(made: Prepared) -> list[tuple[str | None, str]] | None:
    during = made.method.during
    return None if during is None else [(one.set_name, one.metric.key) for one in during]


def test_a_goal_is_evaluated_alone_at_a_cadence_of_its_own(document: dict[str, Any]) -> None:
    made = prepared(document)
    assert (made.evaluate_every, along(made)) == (5, [("forget", "probability")])
    made = prepared(document, until={"forget/loss": {"above": 1}})
    assert (made.evaluate_every, along(made)) == (None, None)  # every step has it


def test_it_joins_what_is_evaluated_along_the_run_anyway(document: dict[str, Any]) -> None:
    made = prepared(document, evaluate={"every": 3})
    assert (made.evaluate_every, along(made)) == (3, None)  # all metrics
    made = prepared(document, evaluate={"every": 3, "during": ["retain/rouge_l"]})
    assert along(made) == [("retain", "rouge_l"), ("forget", "probability")]
    made = prepared(document, evaluate={"every": 3, "during": ["probability"]})
    assert along(made) == [(None, "probability")]


def test_it_is_the_metric_that_the_evaluation_has(document: dict[str, Any]) -> None:
    chosen = {"name": "extraction_strength", "eos": False}
    goal = {"forget/extraction_strength_without_eos": {"below": 0.1}}
    made = prepared(document, until=goal, evaluate={"metrics": [chosen]})
    (one,) = made.method.during or ()
    assert one.metric.eos is False  # type: ignore[attr-defined]
    assert one.set_name == "forget"


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ({"forget/probabilty": {"below": 0.1}}, "until: .*did you mean 'probability'"),
        ({"retain_over_unlearn": {"below": 0.1}}, r"until: a probe gives .*probes: \[g_effect\]"),
        ({"forget/probability": {"belo": 0.1}}, "until.forget/probability: belo: unknown key"),
        ({}, "until: names no goal"),
    ],
)
def test_a_goal_that_cannot_be_is_refused_before_a_weight_is_loaded(
    document: dict[str, Any], goal: Any, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        prepared(document, until=goal)


def test_the_check_says_what_finding_a_rate_and_a_goal_take(document: dict[str, Any]) -> None:
    made = prepared(document, training={"learning_rate": "auto"})
    assert made.cost.steps == 120
    rate, goal = made.cost.notes
    assert rate.startswith("learning rate: found before the run, in at most 25 steps at rising")
    assert "it ends where forget/probability is reached" in goal
    assert "after every 5 steps" in goal
    assert prepared({**document, "until": None}).cost.notes == ()


def test_results_hold_goal_and_curve(document: dict[str, Any], tmp_path: Path) -> None:
    found = amnesis.run(
        {
            **document,
            "until": {"forget/probability": {"below": 1e-3}},
            "training": {"learning_rate": "auto", "steps": 30},
            "evaluate": {"metrics": ["probability"], "bootstrap": 0},
        },
        tmp_path / "out",
        device="cpu",
    ).results
    assert found.goal is not None
    assert found.range_test is not None
    assert found.goal.reached
    assert found.goal.step == found.steps
    assert found.after is not None
    assert found.after["forget/probability"] == pytest.approx(
        found.goal.values["forget/probability"]
    )
    assert found.range_test.rate == max(s["learning_rate"] for s in found.trajectory)
    assert found.range_test.steps == 10
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(written["goal"]) == {"reached", "step", "cap", "limits", "values"}
    assert written["range_test"]["curve"][0]["rate"] == 0
    assert Results.read(tmp_path / "out") == found


def test_a_goal_on_a_set_that_is_not_there_is_refused_too(document: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="no set is called 'forgot'"):
        prepared(document, until={"forgot/probability": {"below": 0.1}})
