"""Relearning as a sweep: what one fixed rate hides, whose rows are taught, and what is asked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import amnesis
from amnesis.contracts import EvaluationSettings, Subject
from amnesis.data.templates import Template
from amnesis.errors import DataError, NonFiniteError
from amnesis_evaluation.attacks.relearned_rows import split_rows
from amnesis_evaluation.attacks.relearning import Relearning

QUICK = EvaluationSettings(bootstrap=10)


@pytest.fixture
def subject(tiny_llama: Any, tiny_tokenizer: Any) -> Subject:
    return Subject(tiny_llama, tiny_tokenizer, Template())


@pytest.fixture
def benchmark(qa_rows: list[dict[str, Any]]) -> Any:
    """Four rows to forget, two of each of two people, and four facts about nobody."""
    people = ["Mirela", "Mirela", "Oren", "Oren"]
    about = [qa_rows[place] for place in (0, 1, 3, 5)]
    forget = [{**row, "author": name} for row, name in zip(about, people, strict=True)]
    rest = [qa_rows[place] for place in (2, 4, 6, 7)]
    return amnesis.create("benchmark", "own", forget=forget, retain=rest[:2], facts=rest[2:])


def rescaled(model: Any, factor: float) -> Any:
    """A copy with the same function, whose inner matrices are larger or smaller."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for layer in twin.model.layers:
            for up, down in (
                (layer.mlp.up_proj, layer.mlp.down_proj),
                (layer.self_attn.v_proj, layer.self_attn.o_proj),
                (layer.self_attn.q_proj, layer.self_attn.k_proj),
            ):
                up.weight *= factor
                down.weight /= factor
    return twin


@pytest.fixture
def forgetful(subject: Subject, benchmark: Any) -> Subject:
    """A model that learnt every row by heart, and from which some were unlearned since."""
    sets = benchmark.sets()
    forget, retain = list(sets["forget"]), [*sets["retain"], *sets["facts"]]
    shared = {"schedule": "constant", "batch_size": 8}
    for objective, regularizer, steps, rate in (("nll", None, 60, 5e-3), ("ga", "nll", 25, 5e-4)):
        amnesis.Unlearner(
            subject.model,
            subject.tokenizer,
            objective,
            regularizer,
            training={**shared, "steps": steps, "learning_rate": rate},
            device="cpu",
        ).fit([*forget, *retain] if regularizer is None else forget, retain)
    return subject


@pytest.mark.slow
def test_a_sweep_does_not_fall_for_weights_that_were_rescaled(
    forgetful: Subject, benchmark: Any
) -> None:
    twin = Subject(rescaled(forgetful.model, 30), forgetful.tokenizer, forgetful.template)
    ids = torch.tensor([[5, 7, 11, 13]])
    with torch.no_grad():
        ours, theirs = forgetful.model(ids).logits, twin.model(ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)

    def recovered(of: Subject, **rates: Any) -> float:
        attack = Relearning(rows=2, steps=10, every=10, metrics=("probability",), **rates)
        return attack.attack(of, benchmark, QUICK).values["forget/probability"]

    one = [recovered(of, learning_rate=1e-4) for of in (forgetful, twin)]
    swept = [recovered(of) for of in (forgetful, twin)]
    assert max(one) > 5 * min(one), "one fixed rate tells two equal models apart"
    assert max(swept) < 1.3 * min(swept)
    assert min(swept) > 10 * min(one)


def test_the_worst_trial_is_reported_under_the_sets_own_names(
    subject: Subject, benchmark: Any
) -> None:
    attack = Relearning(
        rows=2,
        steps=4,
        every=2,
        batch_size=2,
        learning_rate=(1e-5, 1e-2),
        sgd_learning_rate=1e-6,
    )
    calls: list[tuple[int, int]] = []
    found = attack.attack(subject, benchmark, QUICK, lambda _, *place: calls.append(place))
    values = found.values
    trials = ("adamw_1e-05", "adamw_0.01", "sgd_1e-06")
    peaks = {(t, at): values[f"{t}/unseen/probability@{at}"] for t in trials for at in (2, 4)}
    worst, step = max(peaks, key=lambda place: peaks[place])
    assert worst == "adamw_0.01"
    assert found.notes[-1] == f"worst by unseen/probability: {worst} at step {step}"
    for key in ("forget/probability", "unseen/probability", "unseen/extraction_strength"):
        assert values[key] == values[f"{key}@{step}"] == values[f"{worst}/{key}@{step}"]
        assert found.intervals.get(key) == found.intervals.get(f"{key}@{step}")
        assert len({values[f"{trial}/{key}@0"] for trial in trials}) == 1
    assert "forget/probability" in found.intervals
    assert calls == [(2, 12), (4, 12), (6, 12), (8, 12), (10, 12), (12, 12)]
    assert attack.cost(benchmark, QUICK) == (
        "3 copies trained for 4 steps of 2 rows, 7 evaluations of forget"
    )


class Fragile(amnesis.Unlearner):
    """Breaks at once where the rate is high."""

    def fit(self, *rows: Any, **options: Any) -> Any:
        if float(self.training.learning_rate) > 1:
            raise NonFiniteError("step 1: the loss is nan")
        return super().fit(*rows, **options)


def test_a_rate_that_ruins_the_copy_is_said_and_the_others_count(
    subject: Subject, benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amnesis, "Unlearner", Fragile)
    options: dict[str, Any] = {"rows": 2, "steps": 1, "every": 1, "metrics": ("probability",)}
    found = Relearning(learning_rate=(1e-3, 2.0), **options).attack(subject, benchmark, QUICK)
    assert found.notes[-2:] == [
        "worst by unseen/probability: adamw_0.001 at step 1",
        "adamw_2 ended early: step 1: the loss is nan",
    ]
    with pytest.raises(NonFiniteError, match="'relearning': adamw_2 ended early: step 1: the loss"):
        Relearning(learning_rate=2.0, **options).attack(subject, benchmark, QUICK)
    with pytest.raises(ValidationError, match="at least one learning_rate"):
        Relearning(learning_rate=())


def test_what_is_taught_of_each_person_is_not_what_is_asked(benchmark: Any) -> None:
    sets = benchmark.sets()
    forget = list(sets["forget"])
    others = split_rows("others", 8, "author", sets, sets)
    assert (others.training_rows, others.other_rows) == (forget[::2], forget[1::2])
    few = split_rows("others", 1, "author", sets, sets)
    assert (few.training_rows, few.other_rows) == (forget[:1], forget[1:2]), (
        "Oren was not taught: not asked"
    )
    unrelated = split_rows("unrelated", 8, "author", sets, sets)
    assert (unrelated.set_name, unrelated.training_rows) == ("facts", list(sets["facts"]))
    for rows_of, group, message in (
        ("others", "town", "needs the field 'town' in every row of the set 'forget'; name"),
        ("others", "question", "but every row is about another one"),
        ("factz", "author", "no set 'factz'; did you mean 'facts'"),
    ):
        with pytest.raises(DataError, match=message):
            split_rows(rows_of, 8, group, sets, sets)
    assert split_rows("others", 8, None, sets, sets) == others
    unnamed = {"forget": [{"question": "Who?", "answer": "Ada."}]}
    with pytest.raises(DataError, match="needs the field 'group' or 'author' in every row"):
        split_rows("others", 8, None, unnamed, unnamed)
    bare = {name: rows for name, rows in sets.items() if name != "facts"}
    with pytest.raises(DataError, match="no set 'unrelated'; available: forget, retain"):
        split_rows("unrelated", 8, "author", bare, bare)


@pytest.mark.parametrize(
    ("rows_of", "asked"), [("others", {"forget", "unseen"}), ("unrelated", {"forget"})]
)
def test_an_attacker_with_other_rows(
    subject: Subject, benchmark: Any, rows_of: str, asked: set[str]
) -> None:
    attack = Relearning(rows_of=rows_of, steps=1, every=1, learning_rate=1e-3)
    found = attack.attack(subject, benchmark, QUICK)
    assert {key.partition("/")[0] for key in found.values} == asked
    if "unseen" in asked:
        rows = [record["row"] for record in found.examples if record["set"] == "unseen"]
        assert len(rows) == 2 * len(attack.metrics)
