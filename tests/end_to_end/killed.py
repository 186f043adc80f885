"""Run a recipe in this process and be killed at a chosen moment; started by test_resume.py."""

from __future__ import annotations

import importlib
import json
import os
import signal
from pathlib import Path
from typing import Any

# Moments of a run that are counted: each call of one of these is a tick.
TICKING = (
    ("amnesis.training.streams:Streams", "combine"),
    ("torch.optim.adamw:AdamW", "step"),
    ("torch:", "save"),
    ("os:", "fsync"),
)


def tick_and_die(at: int | None) -> list[str]:
    """Record each tick's name, and die by SIGKILL at tick ``at``: nothing is tidied up then."""
    ticks: list[str] = []

    def ticking(name: str, real: Any) -> Any:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            ticks.append(name)
            if len(ticks) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return wrapper

    for where, name in TICKING:
        module, _, attribute = where.partition(":")
        owner = importlib.import_module(module)
        owner = getattr(owner, attribute) if attribute else owner
        setattr(owner, name, ticking(name, getattr(owner, name)))
    return ticks


def worker(recipe: str, out: str, at: int | None, resume: bool, done: Any) -> None:
    """Run in a child, and put the names of the whole run's ticks into ``done``."""
    import torch

    import amnesis

    torch.set_num_threads(1)
    ticks = tick_and_die(at)
    amnesis.run(
        json.loads(Path(recipe).read_text(encoding="utf-8")), out, resume=resume, device="cpu"
    )
    done.put(ticks)
