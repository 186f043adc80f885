"""An attack's values are named by the metrics that it says beforehand."""

from __future__ import annotations

from typing import Any

import pytest

import amnesis
from amnesis.contracts import EvaluationSettings, Subject
from amnesis.data.templates import Template

ATTACKS: list[dict[str, Any]] = [
    {"name": "relearning", "steps": 2, "every": 1, "rows": 1, "learning_rate": (1e-4, 1e-3)},
    {"name": "sampling", "samples": 2},
    {"name": "leak_at_k", "samples": 3, "k": (1, 3, 3)},
    {"name": "leak_at_k", "samples": 2, "k": (2,), "threshold": 0.5},
    {"name": "in_context", "examples": 1},
    {"name": "prefix_injection", "metrics": ("probability",)},
    {"name": "role_play"},
]


@pytest.mark.parametrize("choice", ATTACKS, ids=lambda one: str(one["name"]))
def test_values_have_the_keys_that_were_announced(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, choice: dict[str, Any]
) -> None:
    own = amnesis.create("benchmark", "own", forget=qa_rows[:3], retain=qa_rows[3:])
    attack = amnesis.create("attack", **choice)
    settings = EvaluationSettings(max_new_tokens=3, bootstrap=0)
    evaluation = attack.attack(Subject(tiny_llama, tiny_tokenizer, Template()), own, settings)
    keys = {key.rpartition("/")[2].partition("@")[0] for key in evaluation.values}
    assert keys == set(attack.metric_keys())
