"""Every example runs, and every recipe in examples is one."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from amnesis.runs.recipe import BaseRecipe, FinetuneRecipe, Recipe
from amnesis_evaluation.commands.audit.policy import Policy

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_plain_loop_forgets_and_keeps(capsys: Any) -> None:
    runpy.run_path(str(EXAMPLES / "plain_loop.py"))
    said = re.search(r"forget loss ([\d.]+), divergence .* ([\d.]+)", capsys.readouterr().out)
    assert said is not None
    forget, divergence = map(float, said.groups())
    assert forget < 6.0  # from (2/β)·log 2 = 13.9
    assert divergence < 0.05


# Accelerate's own settings, which are read by it (tests/end_to_end/test_launch.py).
LAUNCHERS = {"cpu.yaml", "data_parallel.yaml", "fsdp2.yaml"}
RECIPES = [path for path in sorted(EXAMPLES.rglob("*.yaml")) if path.name not in LAUNCHERS]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_every_recipe_validates(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    kind: type[BaseRecipe] = FinetuneRecipe if "sets:" in text else Recipe
    if "require:" in text:
        kind = Policy
    recipe = kind.load(path)
    document = recipe.model_dump(mode="json", exclude_none=True, exclude_unset=kind is Policy)
    assert kind.parse(document) == recipe
