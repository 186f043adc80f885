"""Sums over rows of what is computed of their logits, with logits made a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from amnesis.scoring.logits import NO_FINISH, Finish, chunks_of, wide

# The sum over some rows, a scalar with gradient, given which they are and their logits. It is made
# anew for each pass over the rows, so that nothing large is held between passes.
SumOf = Callable[[slice, Tensor], Tensor]
# The gradient is taken before its factor is known. What a loss scaler's factor divided by a step's
# rows comes to keeps it within what float16 can express.
_SCALES = {torch.float16: 256.0}


def sum_in_chunks(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sum_of: Callable[[], SumOf],
    size: int,
    finish: Finish = NO_FINISH,
) -> Tensor:
    """Return ``Σ_chunks sum_of()(rows, finish(hidden·weightᵀ + bias))``, a scalar.

    ``hidden`` is ``(rows, width)``, ``weight`` ``(vocabulary, width)`` and ``bias``
    ``(vocabulary,)`` or None; at most ``size`` rows of logits, and of what is computed of them, are
    in memory at a time. The gradient is computed beside the value, so that logits are made once,
    and only multiplied by the incoming factor in the backward pass; a second backward pass computes
    it anew. First derivatives only.
    """
    total: Tensor = _Sum.apply(  # type: ignore[no-untyped-call]  # torch's own
        hidden, weight, bias, sum_of, size, finish, torch.is_grad_enabled()
    )
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        sum_of: Callable[[], SumOf],
        size: int,
        finish: Finish,
        with_gradient: bool,
    ) -> Tensor:
        kind = hidden.device.type
        # The dtype that nn.Linear computes in here, kept since backward runs outside autocast.
        autocast = torch.is_autocast_enabled(kind)
        ctx.dtype = torch.get_autocast_dtype(kind) if autocast else weight.dtype
        ctx.autocast, ctx.size = autocast, size
        ctx.sum_of, ctx.finish = sum_of, finish
        ctx.save_for_backward(hidden, weight, bias)
        wanted = ctx.needs_input_grad[:3] if with_gradient else (False, False, False)
        total, ctx.gradients = _summed(ctx, hidden, weight, bias, wanted)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            with torch.autocast(grad.device.type, ctx.dtype, enabled=ctx.autocast):
                hidden, weight, bias = inputs
                _, gradients = _summed(ctx, hidden, weight, bias, ctx.needs_input_grad[:3])
        factor = grad / _SCALES.get(ctx.dtype, 1.0)
        of_inputs = (
            None if g is None else g.mul_(factor.to(g.dtype)).to(of.dtype)
            for g, of in zip(gradients, inputs, strict=True)
        )
        return *of_inputs, None, None, None, None


def _summed(
    ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: tuple[bool, ...]
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the sum, and its gradient with respect to the inputs that are wanted."""
    dtype, broad = ctx.dtype, wide(ctx.dtype)
    scale = _SCALES.get(dtype, 1.0)
    d_hidden, d_weight, d_bias = (
        torch.zeros_like(t, dtype=broad) if want and t is not None else None
        for t, want in zip((hidden, weight, bias), wanted, strict=True)
    )
    total = hidden.new_zeros((), dtype=broad)
    w, b = weight.to(dtype), None if bias is None else bias.to(dtype)
    sum_of = ctx.sum_of()
    for rows, h, z in chunks_of(hidden, w, b, dtype, ctx.size):
        z.requires_grad_(any(wanted))
        with torch.set_grad_enabled(any(wanted)):
            part = sum_of(rows, ctx.finish(z))
        total += part.detach()
        if not part.requires_grad:
            continue
        (down,) = torch.autograd.grad(part, z, torch.full_like(part, scale))
        del z, part
        if d_hidden is not None:
            d_hidden[rows] = (down @ w).to(broad)
        if d_weight is not None and broad == dtype:
            d_weight.addmm_(down.T, h)
        elif d_weight is not None:
            d_weight += down.T @ h
        if d_bias is not None:
            d_bias += down.sum(0, dtype=broad)
    return total, [d_hidden, d_weight, d_bias]
