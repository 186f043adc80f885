"""What every section works on: a device, a shape of model, rows; and what it finds."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch

NEEDS_CUDA = "needs CUDA"
# Bytes that a step holds for a parameter in bfloat16: the weight, two gradients, AdamW's moments,
# and a fifth more for what is computed between them.
BYTES = 12
SHARE = 0.85  # of the device's memory; activations take the rest


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama; its weights are random."""

    hidden: int
    layers: int
    heads: int
    groups: int
    middle: int
    vocabulary: int
    batch: int
    words: int
    tied: bool = True

    def configuration(self, **further: Any) -> Any:
        """Return the configuration that transformers makes a model by."""
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.middle,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.groups,
            tie_word_embeddings=self.tied,
            **further,
        )

    def model(self, device: str, dtype: torch.dtype, **further: Any) -> Any:
        """Return a model, made on its device; the same seed gives the same weights."""
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        with torch.device(device):
            configuration = self.configuration(**further)
            return AutoModelForCausalLM.from_config(configuration, dtype=dtype)

    def parameters(self) -> int:
        """Return how many parameters a model has, without making it."""
        return int(self.model("meta", torch.bfloat16).num_parameters())


SHAPES = {
    "8B": Shape(4096, 32, 32, 8, 14336, 128256, 4, 256, tied=False),
    "3B": Shape(3072, 28, 24, 8, 8192, 128256, 4, 256),
    "1B": Shape(2048, 16, 32, 8, 8192, 128256, 8, 256),
    "0.1B": Shape(768, 12, 12, 4, 2048, 32000, 8, 256),
    "tiny": Shape(64, 2, 4, 2, 128, 512, 2, 8),
}


def fitting() -> str:
    """Return the largest shape that a step fits on this machine's GPU with."""
    memory = torch.cuda.get_device_properties(0).total_memory
    return next(n for n, s in SHAPES.items() if BYTES * s.parameters() <= SHARE * memory)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One number, and whether it is within its bound.

    Attributes:
        bound: the largest that is right; None where a number is only told.
        value: None where nothing could be measured, and ``note`` says why.
    """

    section: str
    what: str
    value: float | None = None
    unit: str = ""
    bound: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the value is within its bound; None where it has none, or there is no value."""
        if self.value is None or self.bound is None:
            return None
        return self.value <= self.bound


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What the sections work on."""

    device: str
    shape_name: str
    rounds: int
    steps: int

    @property
    def shape(self) -> Shape:
        """The shape of the models whose speed is measured."""
        return SHAPES[self.shape_name]

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights whose speed is measured."""
        return torch.bfloat16 if self.is_cuda else torch.float32

    def sync(self) -> None:
        """Wait until the device has done its work."""
        if self.is_cuda:
            torch.cuda.synchronize()


def rows_of(words: int, count: int) -> list[dict[str, str]]:
    """Return rows of random words, whose answers have ``words`` tokens or a few more."""
    draw = random.Random(0)
    return [
        {
            "question": f"What is {n}?",
            "answer": " ".join(f"w{draw.randrange(200):03d}" for _ in range(words // 2)),
        }
        for n in range(count)
    ]


def tokenizer_of(rows: list[dict[str, str]]) -> Any:
    """Return a small tokenizer: the models have more embeddings than it has tokens."""
    from amnesis.models.creation import train_tokenizer

    return train_tokenizer([f"{r['question']} {r['answer']}" for r in rows], 500)
