"""The memory of a run before a weight is loaded, and what it says of weights in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from amnesis.runs.cost import GIB, Cost, in_words
from amnesis.runs.preflight import prepare
from amnesis.runs.recipe import Recipe
from amnesis.training.optimizers import bfloat16


@pytest.fixture
def cost(tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path) -> Any:
    """Return a function that returns the cost of a run on the tiny Llama with changes."""

    def cost(dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Cost:
        folder = tmp_path / "model"
        tiny_llama.to(dtype).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        recipe = {
            "model": {"path": str(folder), "quantize": changes.pop("quantize", None)},
            "objective": "ga",
            "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
            **changes,
        }
        return prepare(Recipe.parse(recipe), device="cpu").cost

    return cost


@pytest.mark.parametrize(
    ("dtype", "training", "bytes_each"),
    [
        # Weights, two gradients, moments, and the lower half of master weights.
        (torch.float32, {}, 4 + 8 + 8),
        (torch.float32, {"optimizer": "sgd", "bfloat16_weights": "stochastic"}, 4 + 8),
        (torch.bfloat16, {}, 2 + 4 + 8 + 2),
        (torch.bfloat16, {"optimizer": "sgd"}, 2 + 4 + 2),
        (torch.bfloat16, {"bfloat16_weights": "stochastic"}, 2 + 4 + 4),
        (torch.bfloat16, {"bfloat16_weights": "plain"}, 2 + 4 + 4),
    ],
)
def test_the_bytes_of_a_weight(
    cost: Any, tiny_llama: Any, dtype: torch.dtype, training: dict[str, Any], bytes_each: int
) -> None:
    said = cost(dtype, training=training)
    parameters = sum(p.numel() for p in tiny_llama.parameters())
    assert said.parameters == parameters
    assert said.memory_gib * GIB == pytest.approx(parameters * bytes_each)
    assert len(said.notes) == (dtype is torch.bfloat16) + (
        training.get("bfloat16_weights") == "plain"
    )


def test_only_what_trains_has_gradients_and_moments(cost: Any, tiny_llama: Any) -> None:
    parameters = sum(p.numel() for p in tiny_llama.parameters())
    block = sum(p.numel() for p in tiny_llama.model.layers[1].parameters())
    part = cost(trainable=["*layers.1.*"])
    assert part.memory_gib * GIB == pytest.approx(parameters * 2 + block * (4 + 8 + 2))
    adapters = 2 * (4 * (32 + 32) + 3 * (32 + 64)) * 2  # r·(in + out) of seven maps in two blocks
    lora = cost(lora={"r": 2})
    assert lora.memory_gib * GIB == pytest.approx(parameters * 2 + adapters * (4 + 8 + 8))
    assert lora.parameters == parameters
    assert lora.notes == ()  # the adapter is in float32
    for bits, bytes_each in (("int8", 1), ("nf4", 0.5)):
        base = cost(lora={"r": 2}, quantize=bits)
        assert base.memory_gib * GIB == pytest.approx(
            parameters * bytes_each + adapters * (4 + 8 + 8)
        )


def test_where_master_weights_do_not_fit_the_plan_says_so(
    cost: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "float32 master weights: " in cost().lines()[-1]
    monkeypatch.setattr(bfloat16, "memory_of", lambda device: 1 << 18)
    assert "by stochastic rounding: " in cost().lines()[-1]
    assert "float32 master weights: " in cost(training={"bfloat16_weights": "master"}).lines()[-1]


@pytest.mark.parametrize(
    ("training", "above"),
    [
        ({"learning_rate": 1e-5}, "0.0051"),
        ({"learning_rate": 1e-3}, "0.51"),
        ({"learning_rate": 0.01}, None),
        ({"learning_rate": 1e-5, "optimizer": "sgd"}, None),
    ],
)
def test_a_rate_below_the_weights_rounding_is_said(
    cost: Any, training: dict[str, Any], above: str | None
) -> None:
    lines = cost(training={"bfloat16_weights": "plain", **training}).lines()
    losing = [line for line in lines if "plain loses" in line]
    assert len(losing) == (above is not None)
    assert all(f"on every weight above {above} (" in line for line in losing)
    for way in ("auto", "stochastic"):
        said = cost(training={**training, "bfloat16_weights": way}).lines()
        assert not any("plain loses" in line for line in said)


def test_no_size_is_said_to_be_zero(cost: Any) -> None:
    assert in_words(2.26 * GIB) == "2.3 GiB"
    assert in_words(GIB / 2) == "512 MiB"
    said = cost(training={"learning_rate": "auto", "bfloat16_weights": "master"})
    lines = "\n".join([*said.lines(), *said.notes])
    assert "MiB for weights" in lines
    assert "0.0 GiB" not in lines
