"""What pydantic finds wrong, in words: one problem for one mistake."""

from __future__ import annotations

from typing import Any

import pytest

from amnesis.errors import RecipeError
from amnesis.runs.recipe import FinetuneRecipe, Recipe

RUN: dict[str, Any] = {"model": "m", "benchmark": "fictional", "objective": "ga"}
MAKE: dict[str, Any] = {"model": "m", "benchmark": "fictional", "sets": ["forget"]}


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (Recipe, {"objective": 5},
         "objective: Input should be a valid string or a valid dictionary or a valid list (got 5)"),
        (Recipe, {"objective": [["ga"]]},
         "objective.0: Input should be a valid string or a valid dictionary (got ['ga'])"),
        (Recipe, {"evaluate": {"batch_size": 0}},
         "evaluate.batch_size: Input should be greater than or equal to 1 or 'auto' (got 0)"),
        (Recipe, {"template": {"format": "x"}},
         "template.format: must be one of 'question_answer', 'chat', 'text' (got 'x')"),
        (Recipe, {"template": {"format": "chat", "promt": "x"}},
         "template.promt: unknown key; did you mean"),
        (Recipe, {"training": {"lr": 1}}, "training.lr: unknown key"),
        (Recipe, {"model": {"path": 3}}, "model.path: Input should be a valid string (got 3)"),
        (FinetuneRecipe, {"model": {"path": "a", "config": {}}}, "model.config: unknown key"),
        (FinetuneRecipe, {"model": {"architecture": "llama", "vocab": 3}},
         "model.vocab: unknown key; did you mean 'vocabulary'"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_problem(kind: Any, change: Any, said: str) -> None:
    with pytest.raises(RecipeError) as raised:
        kind.parse({**(RUN if kind is Recipe else MAKE), **change})
    assert str(raised.value).startswith(f"recipe: {said}")
    assert "\n" not in str(raised.value)
