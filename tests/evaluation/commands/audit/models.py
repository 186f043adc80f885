"""A model that knows eight rows, the same one unlearned of three, and relearned for a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import QUESTIONS, new_llama

ROWS = [{"question": q, "answer": a} for q, a in QUESTIONS]
FORGET, RETAIN = [ROWS[0], ROWS[1], ROWS[3]], [ROWS[2], ROWS[4], ROWS[5], ROWS[6], ROWS[7]]


def write_models(folder: Path, tokenizer: Any) -> None:
    """Write ``before``, ``unlearned`` and ``relearned`` into a folder, each with its tokenizer."""
    import amnesis

    model = new_llama(tokenizer, hidden=48, seed=0)

    def save(name: str) -> None:
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)

    def train(objective: Any, rows: Any, steps: int, rate: float, **options: Any) -> None:
        settings = {"steps": steps, "batch_size": len(rows), "learning_rate": rate,
                    "schedule": "constant", "warmup_steps": 0}  # fmt: skip
        unlearner = amnesis.Unlearner(
            model, tokenizer, objective, training=settings, device="cpu", **options
        )
        unlearner.fit(rows, RETAIN if options else None)

    from amnesis.contracts.stream import Risk

    train(Risk(), ROWS, 60, 5e-3)
    save("before")
    train("ga", FORGET, 12, 2e-3, regularizer="nll")
    save("unlearned")
    train(Risk(), FORGET, 12, 3e-3)
    save("relearned")
