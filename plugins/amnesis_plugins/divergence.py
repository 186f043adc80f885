"""The divergence from a reference, whose gradient at the reference is exactly zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from amnesis_plugins.distributions import expected, log_distribution, with_tail


def divergence(logits: Tensor, ref_logps: Tensor, indices: Tensor | None = None) -> Tensor:
    """Return ``KL(p° ‖ softmax(z))`` in nats, ``(rows,)``.

    ``logits`` z are ``(rows, vocabulary)``. ``ref_logps`` are the reference's log-probabilities of
    all entries, or ``(rows, k)`` of those at ``indices``, beside which one bucket holds the rest.
    The gradient is ``p − p°``, taken as this very difference: where both come from the same
    arithmetic it is exactly 0, not what rounding leaves of a backward pass through a softmax.
    First derivatives only.
    """
    value: Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]  # torch's own
        logits, ref_logps, indices
    )
    return value


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, ref_logps: Tensor, indices: Tensor | None) -> Tensor:
        logps = log_distribution(logits)
        ref_logps = ref_logps.to(logps.dtype)
        # In place where it can be: each tensor here is as large as the logits.
        if indices is None:
            target = ref_logps.exp()
            gap = (ref_logps - logps).masked_fill_(target == 0, 0)
            value = gap.mul_(target).sum(-1)
            difference = logps.exp_().sub_(target)
        else:
            p = logps.exp()
            top, ref_top = with_tail(logps.gather(-1, indices)), with_tail(ref_logps)
            # Of the tail the reference's sum alone is known: it keeps the model's proportions.
            tail = p * (ref_top[:, -1:] - top[:, -1:]).exp()
            target = tail.scatter_(-1, indices, ref_logps.exp())
            value = expected(ref_top.exp(), ref_top - top)
            difference = p.sub_(target)
        ctx.dtype = logits.dtype
        ctx.save_for_backward(difference)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (difference,) = ctx.saved_tensors
        return (grad[:, None] * difference).to(ctx.dtype), None, None
