"""The G-effect on fixed examples, against `measure` of the same model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from amnesis.training.monitoring.board import TensorBoard
from amnesis_plugins.g_effect import measure


@pytest.mark.parametrize("regularizer", ["kl", None])
def test_it_is_the_probe_of_the_first_examples(
    fit: Any, tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, regularizer: str | None
) -> None:
    before = copy.deepcopy(tiny_llama)
    probes = [{"name": "g_effect_sets", "examples": 3, "every": 2}]
    trajectory = fit("npo", regularizer, probes=probes).trajectory
    wanted = measure(before, tiny_tokenizer, qa_rows[:3], qa_rows[4:7], ["npo"])
    values = trajectory[0]
    for name, effect in (("forget", "unlearn"), ("retain", "retain")):
        prefix = f"g_effect/sets/{effect}"
        assert values[prefix] == pytest.approx(wanted.total(set=name), rel=1e-4)
        for layer, value in wanted.totals("layer", set=name).items():
            assert values[f"{prefix}/{layer}"] == pytest.approx(value, rel=1e-3, abs=1e-6)
        for row, share in wanted.totals("example", set=name).items():
            assert values[f"{prefix}/examples/{row}"] == pytest.approx(share, rel=1e-3, abs=1e-6)
    assert values["g_effect/sets/retain_over_unlearn"] == pytest.approx(
        wanted.ratio("npo"), rel=1e-3
    )
    assert ["g_effect/sets/unlearn" in v for v in trajectory] == [True, True, False]


def test_it_measures_a_run_that_computes_in_bfloat16(
    fit: Any, tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    probes = [{"name": "g_effect_sets", "examples": 3}]
    runs = [
        fit("ga", "nll", model=copy.deepcopy(tiny_llama), probes=probes,
            training={"steps": 1, "precision": precision})
        for precision in ("float32", "bfloat16")
    ]  # fmt: skip
    assert [run.notes for run in runs] == [[], []]
    exact, rounded = (run.trajectory[0] for run in runs)
    for name in (
        "g_effect/sets/unlearn",
        "g_effect/sets/retain",
        "g_effect/sets/unlearn/examples/0",
    ):
        assert rounded[name] == pytest.approx(exact[name], rel=0.03)


def test_the_examples_shares_are_a_histogram(fit: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    probes = [{"name": "g_effect_sets", "examples": 3, "every": 2}]
    trajectory = fit("ga", "nll", probes=probes, callbacks=[TensorBoard(tmp_path)]).trajectory
    events = EventAccumulator(str(tmp_path), {"histograms": 0}).Reload()  # 0: keep all
    name = "g_effect/sets/unlearn/examples"
    assert not [tag for tag in events.Tags()["scalars"] if tag.startswith(f"{name}/")]
    shown = {event.step: event.histogram_value for event in events.Histograms(name)}
    for values in trajectory:
        shares = [values[f"{name}/{row}"] for row in range(3) if f"{name}/{row}" in values]
        assert (values["step"] in shown) == bool(shares)
        if shares:
            told = shown[values["step"]]
            assert told.num == 3
            assert [told.min, told.max, told.sum] == pytest.approx(
                [min(shares), max(shares), sum(shares)], rel=1e-5
            )
