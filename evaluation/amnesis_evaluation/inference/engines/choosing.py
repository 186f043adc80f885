"""How a token is chosen from logits: the most likely one, or one drawn by the row's generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from amnesis.errors import NonFiniteError
from amnesis_evaluation.inference.engines.prompts import Decoding, Prompt, seed_of

if TYPE_CHECKING:
    from torch import Tensor

# Takes logits, (rows, vocabulary), and the number of each row; returns a token for each.
Choose = Callable[["Tensor", Sequence[int]], "Tensor"]


def chooser(prompts: Sequence[Prompt], decoding: Decoding) -> Choose:
    """Return what chooses the prompts' tokens; it raises NonFiniteError for logits of NaN."""
    return greedy if decoding.temperature == 0 else Sampler(prompts, decoding.temperature)


def greedy(logits: Tensor, rows: Sequence[int]) -> Tensor:
    """Return each row's most likely token."""
    values, tokens = logits.max(-1)  # NaN is larger than any number
    check_numbers(bool(values.isnan().any()))
    return tokens


def check_numbers(broken: bool) -> None:
    """Refuse logits that are not numbers.

    Raises:
        NonFiniteError: some are.
    """
    if broken:
        raise NonFiniteError("the model's logits are not numbers (NaN): its weights are broken")


class Sampler:
    """Draws each row's token from that row's own generator."""

    def __init__(self, prompts: Sequence[Prompt], temperature: float) -> None:
        """Begin a generator for each prompt."""
        import torch

        self._temperature = temperature
        self._generators = [torch.Generator().manual_seed(seed_of(p)) for p in prompts]

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Return a token for each of ``rows``."""
        import torch

        probabilities = (logits.double() / self._temperature).softmax(-1).cpu()
        check_numbers(bool(probabilities.isnan().any()))
        tokens = [
            torch.multinomial(distribution, 1, generator=self._generators[row])
            for distribution, row in zip(probabilities, rows, strict=True)
        ]
        return torch.cat(tokens).to(logits.device)
