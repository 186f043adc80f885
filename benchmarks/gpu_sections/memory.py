"""How near the plan's prediction is to the memory that two real steps take."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from amnesis.runs.preflight import prepare
from gpu_sections.bench import SHAPES, Bench, Finding

WITHIN = 0.15
METHOD: dict[str, Any] = {"objective": "npo", "regularizer": "nll", "combiner": "sago"}
RECIPES: dict[str, dict[str, Any]] = {
    "all weights": {},
    "all weights, checkpointing": {"training": {"gradient_checkpointing": True}},
    "LoRA": {"lora": {"r": 16}},
}


def memory_plan(bench: Bench) -> Iterator[Finding]:
    """Compare prediction and measurement of several recipes of one model."""
    import memory as planned

    # Saved and loaded again for each: a larger shape shows nothing that this one does not.
    name = "tiny" if bench.shape_name == "tiny" else "0.1B"
    shape = SHAPES[name]
    for what, further in RECIPES.items():
        training = {"batch_size": shape.batch, **further.get("training", {})}
        with tempfile.TemporaryDirectory() as folder:
            recipe = planned.recipe_of(
                {
                    "model": (
                        "llama",
                        {
                            "hidden_size": shape.hidden,
                            "intermediate_size": shape.middle,
                            "num_hidden_layers": shape.layers,
                        },
                    ),
                    "vocabulary": shape.vocabulary,
                    "words": shape.words,
                    "recipe": {**METHOD, **further, "training": training},
                },
                Path(folder),
            )
            prepared = prepare(recipe, device=bench.device)
            told = planned.predicted(recipe, prepared)["predicted_mib"]
            taken = planned.measured(recipe, prepared)["measured_mib"]
        if told is None:
            yield Finding(section="memory", what=f"{what}, {name}", note="nothing was predicted")
            continue
        yield Finding(
            section="memory",
            what=f"{what}, {name}: prediction against measurement",
            value=abs(told / taken - 1),
            unit="relative",
            bound=WITHIN if bench.is_cuda else None,
            note=f"{told:,.0f} MiB predicted, {taken:,.0f} measured",
        )
