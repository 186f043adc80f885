"""Heat maps: what is drawn is what was logged."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from amnesis.training.unlearner import Unlearner
from amnesis_plugins.g_effect.pictures import heat_maps, layers_by_step


def test_layers_by_step_are_each_steps_shares(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    trajectory = (
        Unlearner(
            tiny_llama,
            tiny_tokenizer,
            "ga",
            "nll",
            probes=["g_effect", {"name": "g_effect_update", "every": 2}],
            training={"steps": 3, "batch_size": 2, "learning_rate": 1e-3},
            device="cpu",
        )
        .fit(qa_rows[:4], qa_rows[4:])
        .trajectory
    )
    assert any("g_effect/unlearn/effective" in values for values in trajectory)
    forget, retain = layers_by_step(trajectory).values()
    assert list(forget) == ["tied_embedding", "block_00", "block_01", "final_norm"]
    for rows, effect in ((forget, "unlearn"), (retain, "retain")):
        for step, values in enumerate(trajectory, 1):
            column = {layer: row[str(step)] for layer, row in rows.items()}
            total = values[f"g_effect/{effect}"]
            assert sum(column.values()) == pytest.approx(np.sign(total), rel=1e-5)
            for layer, share in column.items():
                logged = values[f"g_effect/{effect}/{layer}"]
                assert share * abs(total) == pytest.approx(logged, rel=1e-6)
    drawn = heat_maps({"a": forget, "b": retain})
    images = [axes.images[0].get_array() for axes in drawn.axes if axes.images][:2]
    expected = [[list(row.values()) for row in rows.values()] for rows in (forget, retain)]
    np.testing.assert_allclose(images, expected)


def test_without_effects_there_is_nothing_to_draw() -> None:
    assert layers_by_step([{"step": 1, "forget/loss": 2.0}]) == {}
    assert layers_by_step([]) == {}


def test_without_matplotlib_there_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert heat_maps({"a": {"row": {"1": 1.0}}}) is None
