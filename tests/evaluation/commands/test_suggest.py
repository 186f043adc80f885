"""`amnesis suggest`: candidates tried out on disposable models, ranked at equal forgetting."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amnesis.contracts import Subject
from amnesis.data import Template
from amnesis.errors import RecipeError
from amnesis.g_effect import risk_value
from amnesis.g_effect.sets import encoded_for
from amnesis_evaluation.commands.suggest import suggest
from amnesis_evaluation.commands.suggest_trials import (
    Moment,
    Trial,
    candidate_of,
    disposable,
    rank,
    try_out,
)


def trial(name: str, risks: list[float], harm: float) -> Trial:
    """A run that raises the forget risk so, and the retain risk ``harm`` times as much."""
    gained = [(risk, risk - risks[0]) for risk in risks]
    path = [Moment(k, r, harm * g, -g, -harm * g) for k, (r, g) in enumerate(gained)]
    return Trial(name, tuple(path))


def test_ranking_is_at_equal_forgetting_not_at_equal_steps() -> None:
    slow = trial("slow", [0.1, 0.2, 0.4, 0.8, 1.6], 0.1)
    fast = trial("fast", [0.1, 3.0, 6.0, 9.0, 12.0], 0.9)
    idle = trial("idle", [0.1, 0.1, 0.2], 0.0)
    ranking = rank([fast, slow, idle])
    assert ranking.probability == pytest.approx(math.exp(-0.1) / 2)
    assert [t.name for t, _ in ranking.ranked] == ["slow", "fast"]
    assert [t.name for t in ranking.short] == ["idle"]
    for own, moment in ranking.ranked:
        assert moment.forget_probability == pytest.approx(ranking.probability)
        assert moment.ratio == pytest.approx(0.1 if own.name == "slow" else 0.9)


def test_where_none_gets_there_the_furthest_sets_the_mark() -> None:
    a, b = trial("a", [0.1, 0.3], 0.5), trial("b", [0.1, 0.2], 0.1)
    ranking = rank([a, b], 0.001)
    assert ranking.probability == pytest.approx(math.exp(-0.3))
    assert ([t.name for t, _ in ranking.ranked], [t.name for t in ranking.short]) == (["a"], ["b"])


@given(st.lists(st.floats(0.01, 5), min_size=2, max_size=8), st.floats(0.01, 0.99))
def test_a_crossing_is_the_first_one(risks: list[float], probability: float) -> None:
    moment = trial("t", risks, 0.3).at(probability)
    risk = -math.log(probability)
    if max(risks) < risk:
        assert moment is None
    else:
        assert moment is not None
        first = next(k for k, r in enumerate(risks) if r >= risk)
        assert max(first - 1, 0) <= moment.steps <= first


@pytest.mark.parametrize("lora_rank", [None, 4])
def test_trials_measure_the_sets_and_leave_the_model_alone(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, lora_rank: int | None
) -> None:
    before = {name: t.clone() for name, t in tiny_llama.state_dict().items()}
    rows = {"forget": qa_rows[:4], "retain": qa_rows[4:]}
    subject = Subject(tiny_llama, tiny_tokenizer, Template())
    trials = try_out(
        subject,
        rows,
        [candidate_of("ga"), candidate_of("wga:beta=2+nll/pcgrad")],
        training={"steps": 3, "learning_rate": 1e-2, "batch_size": 2},
        examples=3,
        lora_rank=lora_rank,
        seed=0,
        told=lambda what, done, total: None,
    )
    after = tiny_llama.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad for p in tiny_llama.parameters())
    for name in ("forget", "retain"):
        probed = encoded_for(tiny_llama, tiny_tokenizer, name, rows[name][:3], [], None, 8)
        risk = risk_value(tiny_llama, probed.batches)
        for one in trials:
            assert getattr(one.path[0], f"{name}_risk") == pytest.approx(risk, rel=1e-5)
    assert [len(one.path) for one in trials] == [4, 4]
    ascent = trials[0].path
    assert ascent[-1].forget_risk > ascent[0].forget_risk
    assert ascent[-1].unlearning < 0


def test_a_disposable_copy_is_a_copy(tiny_llama: Any) -> None:
    with disposable(tiny_llama, None, 0) as model:
        assert model is not tiny_llama
        assert next(model.parameters()).data_ptr() != next(tiny_llama.parameters()).data_ptr()


def test_the_command_writes_the_numbers_it_ranks_by(
    tmp_path: Path, tiny_folder: Path, qa_rows: Any, write_rows: Any, capsys: Any
) -> None:
    suggest(
        str(tiny_folder),
        candidates="ga,wga+nll",
        steps=2,
        learning_rate=1e-2,
        batch_size=2,
        out=tmp_path / "out",
        device="cpu",
        **write_rows(forget=qa_rows[:4], retain=qa_rows[4:]),
    )
    record = json.loads((tmp_path / "out" / "suggestion.json").read_text())
    named = [r["candidate"] for r in record["ranking"]] + record["not_reached"]
    assert sorted(named) == ["ga", "wga+nll"]
    ratios = [r["ratio"] for r in record["ranking"]]
    assert ratios == sorted(ratios)
    shown = capsys.readouterr().out
    assert all(f"{ratio:.4f}" in shown for ratio in ratios)


@pytest.mark.parametrize("at", [0.0, 1.5])
def test_a_probability_must_be_one(at: float) -> None:
    with pytest.raises(RecipeError, match="between 0 and 1"):
        suggest("model", at=at)


def test_reading_candidates() -> None:
    found = candidate_of(" wga:beta=5+kl/sago ")
    assert found.name == "wga:beta=5+kl/sago"
    assert found.objective == {"name": "wga", "beta": 5}
    assert (found.regularizer, found.combiner) == ({"name": "kl"}, {"name": "sago"})
    assert candidate_of("ga").regularizer is None
