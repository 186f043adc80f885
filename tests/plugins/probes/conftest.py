from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amnesis.training.unlearner import FitResult, Unlearner


@pytest.fixture
def fit(tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any) -> Callable[..., FitResult]:
    """Unlearn the first four rows for a few steps; what is given overrides."""

    def fitted(objective: Any = "ga", regularizer: Any = "nll", **options: Any) -> FitResult:
        training = {
            "steps": 3,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "optimizer": "sgd",
            "max_grad_norm": 0,
            "schedule": "constant",
            **options.pop("training", {}),
        }
        run = Unlearner(
            options.pop("model", tiny_llama),
            tiny_tokenizer,
            objective,
            regularizer,
            training=training,
            device="cpu",
            **options,
        )
        return run.fit(qa_rows[:4], qa_rows[4:])

    return fitted
