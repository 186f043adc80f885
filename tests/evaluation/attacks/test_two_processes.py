"""Two processes attack as one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.processes import on_two_ranks

import amnesis
from amnesis.contracts import EvaluationSettings, Subject
from amnesis.data.templates import Template

SETTINGS = EvaluationSettings(batch_size=3, max_new_tokens=4, bootstrap=20)
ATTACKS: tuple[dict[str, Any], ...] = (
    {"name": "in_context", "examples": 1},
    {"name": "prefix_injection", "tokens": 1},
    {"name": "gcg", "rows": 2, "steps": 2, "candidates": 6, "length": 2},
    {"name": "leak_at_k", "samples": 3, "k": [2]},
    {"name": "relearning", "rows": 2, "steps": 1, "every": 1, "learning_rate": 1e-3},
)


def _attacked(folder: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    subject = Subject(
        AutoModelForCausalLM.from_pretrained(folder / "model"),
        AutoTokenizer.from_pretrained(folder / "model"),
        Template(),
    )
    own = amnesis.create(
        "benchmark", "own", **{name: folder / f"{name}.jsonl" for name in ("forget", "retain")}
    )
    found = {}
    for choice in ATTACKS:
        options = {key: value for key, value in choice.items() if key != "name"}
        evaluation = amnesis.create("attack", choice["name"], **options).attack(
            subject, own, SETTINGS
        )
        found[choice["name"]] = [evaluation.values, evaluation.notes]
    return found


def _rank(rank: int, folder: Path) -> None:
    (folder / f"rank{rank}.json").write_text(json.dumps(_attacked(folder)))


def test_two_processes_attack_as_one(rich_place: Path) -> None:
    one = _attacked(rich_place)
    on_two_ranks(_rank, rich_place)
    first, second = (json.loads((rich_place / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    for name, (values, notes) in one.items():
        assert first[name][0] == pytest.approx(values, abs=2e-5), name
        assert first[name][1] == notes, name
