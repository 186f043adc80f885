"""Records made up, for histories of which nothing was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amnesis_evaluation.commands.audit.history import append


def body(model: str = "a/model", *, passed: bool = True, **further: Any) -> dict[str, Any]:
    """Return what an audit has to say, but for what the history adds."""
    outcome = {"key": "forget/probability", "bound": "max", "threshold": 0.1, "by": "value",
               "of": None, "reference": None, "measured": 0.05 if passed else 0.9,
               "passed": passed, "reason": "0.05 ≤ 0.1"}  # fmt: skip
    return {
        "command": "amnesis audit a/model",
        "environment": {"python": "3.11.7", "threads": 1},
        "model": {"name": model, "fingerprint": "f0" * 32, "tokenizer": "0a" * 16,
                  "template": {"prompt": "{question}"}, "files": {}},
        "policy": {"name": "policy.yaml", "sha256": "aa" * 32, "require": {}},
        "data": {"salt": "bb" * 32, "sets": {"forget": "cc" * 32}},
        "against": {},
        "values": {"forget/probability": outcome["measured"]},
        "intervals": {"forget/probability": [0.01, 1.0]},
        "outcomes": [outcome],
        "requests": [],
        "passed": passed,
        **further,
    }  # fmt: skip


def write_history(path: Path, count: int, key: Any = None) -> Path:
    """Append so many records to a history."""
    for number in range(count):
        append(path, body(f"model-{number}", passed=number % 3 != 2), key)
    return path
