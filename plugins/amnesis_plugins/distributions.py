"""Distributions over the vocabulary: logarithms and cross-entropies that stay defined."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def log_distribution(logits: Tensor) -> Tensor:
    """Return ``log softmax(z)`` over the last axis; half precision is computed in float32."""
    wide = logits.float() if logits.element_size() < 4 else logits
    return wide.log_softmax(-1)


def expected(p: Tensor, values: Tensor) -> Tensor:
    """Return ``Σ_v p(v)·values(v)`` over the last axis, with ``0·(±∞) = 0``."""
    return (p * values.masked_fill(p == 0, 0)).sum(-1)


def with_tail(logps: Tensor) -> Tensor:
    """Append the log-probability of all entries that are not there, ``(rows, k + 1)``.

    What is left of 1 is known to the dtype's precision alone, which is the least it is taken to be.
    """
    import torch

    left = -torch.expm1(logps.logsumexp(-1, keepdim=True))
    tail = left.clamp(min=torch.finfo(logps.dtype).eps).log()
    return torch.cat([logps, tail], -1)
