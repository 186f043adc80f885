"""Models and rows for the evaluation's tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

# Before any library reads it: a test that reaches for the hub must fail at once, not retry.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture
def exact_llama(tiny_llama: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tiny Llama in float64 all through: transformers' norm computes in float32."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    def forward(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        variance = hidden.square().mean(-1, keepdim=True)
        normal: torch.Tensor = hidden * torch.rsqrt(variance + self.variance_epsilon)
        return normal.mul(self.weight)

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)
    return tiny_llama.double()


@pytest.fixture(scope="session")
def rich_rows(qa_rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with a paraphrase and wrong answers, as in TOFU."""
    answers = [row["answer"] for row in qa_rows]
    return [
        {
            **row,
            "paraphrased_question": "Tell me: " + row["question"],
            "paraphrased_answer": "It is said that " + row["answer"],
            "perturbed_answer": [answers[(i + k) % len(answers)] for k in (1, 2, 3)],
        }
        for i, row in enumerate(qa_rows)
    ]


@pytest.fixture
def rich_place(
    tiny_folder: Path,
    rich_rows: list[dict[str, Any]],
    write_rows: Callable[..., dict[str, Path]],
) -> Path:
    """A folder with the saved tiny model and files of rich rows: forget, retain, holdout."""
    write_rows(forget=rich_rows[:3], retain=rich_rows[3:5], holdout=rich_rows[5:])
    return tiny_folder.parent
