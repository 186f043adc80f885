"""Runs to compare, on disk, made up: a recipe, results, and the values of each row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from amnesis.storage import write_table

Values = NDArray[np.float64]


def run_folder(
    path: Path,
    values: dict[str, Values],
    *,
    objective: str = "ga",
    seed: int = 0,
    groups: list[str] | None = None,
    **more: Any,
) -> str:
    """Write a run with these values of each row, by metric."""
    path.mkdir()
    recipe = {"objective": objective, "regularizer": "kl", "combiner": "sum", "seed": seed}
    (path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    results = {
        "before": {"forget/probability": 0.95, "retain/probability": 0.95},
        "after": {name: float(v.mean()) for name, v in values.items()},
        "sets": {"forget": "f", "retain": "r"},
        **more,
    }
    (path / "results.json").write_text(json.dumps(results))
    records = [
        {
            "phase": phase,
            "set": name.partition("/")[0],
            "row": row,
            **({} if groups is None else {"group": groups[row]}),
            "metric": name.partition("/")[2],
            "value": float(value) + (phase == "before"),
        }
        for phase in ("before", "after")
        for name, column in values.items()
        for row, value in enumerate(column)
    ]
    write_table(path / "examples.parquet", records)
    return str(path)


def values_of(seed: int, forget: float, retain: float, size: int = 40) -> dict[str, Values]:
    noise = np.random.default_rng(99).normal(0, 0.1, (2, size))
    own = np.random.default_rng(seed).normal(0, 0.01, (2, size))
    return {
        "forget/probability": forget + noise[0] + own[0],
        "retain/probability": retain + noise[1] + own[1],
        "forget/rouge_l": 0.5 + own[0],
    }
