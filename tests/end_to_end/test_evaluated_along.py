"""A run that is evaluated while it goes on, and stopped by what is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.core.training.events import picture

import amnesis


def recipe(model: Path, rows: Any, **changes: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "objective": "ga",
        "regularizer": "nll",
        "benchmark": {"name": "own", "forget": rows[:4], "retain": rows[4:]},
        "training": {"steps": 9, "batch_size": 4, "learning_rate": 1e-2},
        "evaluate": {"metrics": ["probability"], "every": 2, "bootstrap": 0},
        **changes,
    }


def test_an_evaluation_along_is_in_the_precision_of_those_before_and_after(
    tiny_folder: Path, qa_rows: Any, tmp_path: Path
) -> None:
    """A run's bfloat16 is the run's: at a rate that moves nothing all evaluations agree."""
    results = amnesis.run(
        {
            "model": str(tiny_folder),
            "objective": "ga",
            "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
            "training": {"steps": 2, "learning_rate": 1e-12, "precision": "bfloat16"},
            "evaluate": {"metrics": ["forget/probability"], "bootstrap": 0, "every": 1},
        },
        tmp_path / "bfloat16",
        device="cpu",
    ).results
    assert results.before is not None
    assert results.after is not None
    along = [step["forget/probability"] for step in results.trajectory]
    assert len(along) == 2
    for value in (*along, results.after["forget/probability"]):
        assert value == pytest.approx(results.before["forget/probability"], rel=1e-6)


def test_evaluations_are_in_the_trajectory_and_in_tensorboard(
    tiny_folder: Path, qa_rows: Any, tmp_path: Path
) -> None:
    made = recipe(tiny_folder, qa_rows)
    results = amnesis.run(made, tmp_path / "out", device="cpu").results
    evaluated = {
        step["step"]: step["forget/probability"]
        for step in results.trajectory
        if "forget/probability" in step
    }
    assert list(evaluated) == [2, 4, 6, 8]
    assert len(set(evaluated.values())) == 4
    shown = picture(tmp_path / "out" / "tensorboard" / "ga+nll")
    curve = dict(shown["forget/probability"])
    assert list(curve) == [0, 2, 4, 6, 8, 9], "before, along the way, after"
    assert results.before is not None
    assert results.after is not None
    assert curve[0] == pytest.approx(results.before["forget/probability"])
    assert curve[2] == pytest.approx(evaluated[2])
    assert curve[9] == pytest.approx(results.after["forget/probability"])
    assert len(shown["learning_rate"]) == 9


def test_a_limit_on_a_metric_ends_the_run(tiny_folder: Path, qa_rows: Any, tmp_path: Path) -> None:
    made = recipe(tiny_folder, qa_rows, stop_when={"retain/probability": {"above": 0.0}})
    results = amnesis.run(made, tmp_path / "out", device="cpu").results
    assert results.trajectory[-1]["step"] == 2
    assert any("stopped after step 2: retain/probability was" in note for note in results.notes)
    assert results.steps == 2
