"""The memory of a step as ``--check`` forecasts it, beside what two real steps take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from amnesis.runs.planning import plan as planning
from amnesis.runs.planning.measuring import measure_steps
from amnesis.runs.planning.plan import MemoryPlan, forecast_of, plan_memory, rows_of
from amnesis.runs.planning.rehearsal import Scene
from amnesis.runs.preflight import Prepared, prepare
from amnesis.runs.recipe import Recipe

LLAMA = (
    "llama",
    {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3},
)
Ready = Callable[..., tuple[Recipe, Prepared]]


@pytest.fixture
def ready(tmp_path: Path, tiny_tokenizer: Any) -> Ready:
    """Return a function that writes a model of random weights and prepares a run of it."""

    def ready(
        model: tuple[str, dict[str, Any]] = LLAMA,
        dtype: torch.dtype = torch.float32,
        vocabulary: int = 1000,
        **changes: Any,
    ) -> tuple[Recipe, Prepared]:
        kind, sizes = model
        heads = {} if kind == "gpt2" else {"num_attention_heads": 4, "num_key_value_heads": 2}
        config = AutoConfig.for_model(kind, vocab_size=vocabulary, **heads, **sizes)
        folder = tmp_path / kind
        AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        rows = [
            {"question": f"Number {k}?", "answer": "snow is white " * (10 + k)} for k in range(6)
        ]
        training = {"steps": 2, "batch_size": 4, **changes.pop("training", {})}
        recipe = Recipe.parse(
            {
                "model": str(folder),
                "objective": "ga",
                "regularizer": "nll",
                "benchmark": {"name": "own", "forget": rows, "retain": rows},
                "training": training,
                **changes,
            }
        )
        return recipe, prepare(recipe, device="cpu")

    return ready


def scene_of(recipe: Recipe, prepared: Prepared, **changes: Any) -> Scene:
    config = AutoConfig.from_pretrained(recipe.model.path)
    rows = rows_of(recipe, prepared.method, prepared.examples)
    return Scene(
        recipe=recipe,
        method=prepared.method,
        config=config,
        rows=rows,
        device="cpu",
        **changes,
    )


@pytest.mark.parametrize(
    "run",
    [
        {"combiner": "pcgrad"},
        {
            "model": ("gpt2", {"n_embd": 128, "n_layer": 3, "n_head": 4}),
            "dtype": torch.bfloat16,
            "vocabulary": 6000,
            "training": {"gradient_checkpointing": True},
        },
        {
            "model": (
                "gemma2",
                {
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "num_hidden_layers": 4,
                    "head_dim": 16,
                },
            ),
            "objective": "npo",
            "regularizer": "kl",
            "vocabulary": 8000,
            "lora": {"r": 8},
        },
    ],
    ids=["llama", "gpt2, bfloat16, checkpointing", "gemma2, lora, kl"],
)
def test_the_forecast_is_what_two_steps_take(ready: Ready, run: dict[str, Any]) -> None:
    recipe, prepared = ready(**run)
    plan = plan_memory(recipe, prepared)
    assert plan is not None
    assert plan.forecast is not None
    measured = measure_steps(recipe, prepared)
    assert plan.forecast.peak == pytest.approx(measured.peak, rel=0.15)
    assert plan.fits
    (line,) = plan.lines()
    assert "fit" not in line
    assert measured.seconds > 0
    assert measured.steps == 2


def test_what_does_not_fit_does_with_what_is_advised(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    recipe, prepared = ready(("llama", small), training={"steps": 100})
    full = plan_memory(recipe, prepared)
    assert full is not None
    assert full.forecast is not None
    room = full.forecast.peak * 0.8 / planning.FITTING
    monkeypatch.setattr(planning, "memory_of", lambda device: room)
    plan = plan_memory(recipe, prepared)
    assert plan is not None
    assert plan.way in {("training.micro_batch_size=2",), ("training.micro_batch_size=1",)}
    assert "does not fit" in plan.lines()[-1]
    assert plan.lines()[-1].endswith(plan.way[0])
    size = int(plan.way[0][-1])
    training = recipe.training.model_copy(update={"micro_batch_size": size})
    changed = recipe.model_copy(update={"training": training})
    after = plan_memory(changed, prepared)
    assert after is not None
    assert after.fits

    monkeypatch.setattr(planning, "memory_of", lambda device: 1000)
    none = plan_memory(recipe, prepared)
    assert none is not None
    assert none.way == ()
    assert none.cheaper is not None
    assert none.cheaper.peak < full.forecast.peak
    assert "nor with any setting" in none.lines()[-1]


@pytest.mark.slow
def test_a_deep_model_is_known_by_some_of_its_layers(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, prepared = ready(
        ("llama", {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 17})
    )
    scene = scene_of(recipe, prepared)
    some = forecast_of(scene)
    monkeypatch.setattr(planning, "DEEPEST", 17)
    every = forecast_of(scene)
    assert some is not None
    assert every is not None
    assert some.peak == pytest.approx(every.peak, rel=0.01)
    assert some.held == pytest.approx(every.held, rel=0.01)


def test_a_shard_takes_less_and_two_copies_more(ready: Ready) -> None:
    recipe, prepared = ready(vocabulary=8000)
    one, copy, shard = (
        forecast_of(scene_of(recipe, prepared, ranks=ranks, sharded=sharded))
        for ranks, sharded in ((1, False), (2, False), (8, True))
    )
    assert one is not None
    assert copy is not None
    assert shard is not None
    assert shard.weights == pytest.approx(one.weights / 8, rel=0.01)
    assert shard.held == pytest.approx(one.held / 8, rel=0.02)  # moments and all
    assert shard.peak < one.peak < copy.peak + 1


def test_of_a_long_run_the_longest_rows_count(ready: Ready) -> None:
    recipe, prepared = ready()
    short = rows_of(recipe, prepared.method, prepared.examples)["forget"]
    training = recipe.training.model_copy(update={"steps": 1000})
    longer = recipe.model_copy(update={"training": training})
    rows = rows_of(longer, prepared.method, prepared.examples)["forget"]
    lengths = sorted(e.length for e in prepared.examples["forget"].examples)
    assert [e.length for e in rows.examples] == lengths[-4:]
    assert max(e.length for e in short.examples) <= lengths[-1]


def test_code_that_reads_values_is_said_to_be_unknown(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(scene: Scene) -> Any:
        raise RuntimeError("a value is asked for")

    monkeypatch.setattr(planning, "rehearse", raises)
    recipe, prepared = ready()
    plan = plan_memory(recipe, prepared)
    assert plan == MemoryPlan(device="cpu", room=plan.room if plan else None, forecast=None)
    assert "unknown" in plan.lines()[0]


def test_sharding_is_advised_where_there_are_devices(
    ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, prepared = ready()
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    scene = replace(scene_of(recipe, prepared), device="cuda:0")
    keys = [" ".join(keys) for keys, _ in planning._bases(scene)]
    assert keys[0] == ""
    assert "--num_processes 4" in keys[1]
    assert keys[2] == "lora.r=16"
