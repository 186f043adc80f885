"""Run a recipe in this process and be killed at a chosen moment; started by test_resume.py."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

# Moments of a run that are counted: each call of one of these is a tick.
TICKING = (
    ("amnesis.training.streams:Streams", "combine"),
    ("torch.optim.adamw:AdamW", "step"),
    ("amnesis.training.checkpoints:", "_seal"),
    ("amnesis.training.trainer:TwoStreamTrainer", "_save_progress"),
    ("amnesis.runs.folder:", "write_model"),
    ("amnesis.runs.folder:", "write_json"),
    ("torch:", "save"),
)


def tick_and_die(at: int | None) -> list[int]:
    """Count ticks, and die by SIGKILL at number ``at``: nothing can be tidied up after that."""
    import importlib

    count = [0]

    def ticking(real: Any) -> Any:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return wrapper

    for where, name in TICKING:
        module, _, attribute = where.partition(":")
        owner = importlib.import_module(module)
        owner = getattr(owner, attribute) if attribute else owner
        setattr(owner, name, ticking(getattr(owner, name)))
    return count


def main(recipe: str, out: str, at: int | None, resume: bool) -> int:
    """Run; give the number of ticks of the whole run."""
    import torch

    import amnesis

    torch.set_num_threads(1)
    count = tick_and_die(at)
    amnesis.run(
        json.loads(Path(recipe).read_text(encoding="utf-8")), out, resume=resume, device="cpu"
    )
    return count[0]


def worker(recipe: str, out: str, at: int | None, resume: bool, done: Any) -> None:
    """Run in a child, and say how many ticks it took."""
    done.put(main(recipe, out, at, resume))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], None, False)
