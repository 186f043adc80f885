"""Log-probabilities of labels from hidden states, with logits computed a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from amnesis.scoring.logits import NO_FINISH, Finish, chunks_of, wide


def label_logps_in_chunks(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    chunk: int = 256,
    finish: Finish = NO_FINISH,
) -> Tensor:
    """Return log-probabilities of ``targets`` under the logits ``finish(hidden·weightᵀ + bias)``.

    ``hidden`` is ``(rows, width)``, ``weight`` ``(vocabulary, width)``, ``bias`` ``(vocabulary,)``
    or None, and ``targets``, like the result, ``(rows,)``. At most ``chunk`` rows of logits are in
    memory at a time. Only the arguments are saved for the backward pass, which computes the logits
    again: a saved log-sum-exp would make it no faster. Half precision is widened to float32, also
    in the result, as by :func:`amnesis.scoring.scores.label_logps`. Only first derivatives are
    supported, in backward and forward mode.
    """
    logps: Tensor = _LabelLogps.apply(  # type: ignore[no-untyped-call]  # torch's own
        hidden, weight, bias, targets, chunk, finish
    )
    return logps


class _LabelLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        chunk: int,
        finish: Finish,
    ) -> Tensor:
        kind = hidden.device.type
        # The dtype that nn.Linear computes in here, saved since backward runs outside autocast.
        ctx.dtype = (
            torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        )
        logps = hidden.new_empty(len(hidden), dtype=wide(ctx.dtype))
        ctx.chunk, ctx.finish = chunk, finish
        for rows, _, z in _logits(ctx, hidden, weight, bias):
            # log_softmax passes over the vocabulary once; gather minus logsumexp would do so five
            # times.
            logps[rows] = z.log_softmax(1).gather(1, targets[rows, None]).squeeze(1)
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.save_for_forward(hidden, weight, bias, targets)
        return logps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        broad = wide(ctx.dtype)
        d_hidden = torch.empty_like(hidden) if to_hidden else None
        d_weight = torch.zeros_like(weight, dtype=broad) if to_weight else None
        d_bias = torch.zeros_like(bias, dtype=broad) if to_bias else None
        w = weight.to(ctx.dtype)
        for rows, h, z in _logits(ctx, hidden, weight, bias):
            # dℓ/dz = onehot − p. The incoming gradient is multiplied into hidden states rather than
            # into this, whose rows are as long as the vocabulary.
            down = z.softmax(1).scatter_add_(1, targets[rows, None], -torch.ones_like(z[:, :1]))
            down = ctx.finish.pushed(down, z)
            del z
            narrow, g = down.to(ctx.dtype), -grad[rows, None].to(broad)
            if d_hidden is not None:
                d_hidden[rows] = (g * (narrow @ w)).to(hidden.dtype)
            if d_weight is not None and broad == ctx.dtype:
                d_weight.addmm_(down.T, g * h)
            elif d_weight is not None:
                d_weight += narrow.T @ (g * h).to(ctx.dtype)
            if d_bias is not None:
                d_bias += (g * down).sum(0)
        return (
            d_hidden,
            None if d_weight is None else d_weight.to(weight.dtype),
            None if d_bias is None else d_bias.to(bias.dtype),
            None,
            None,
            None,
        )

    @staticmethod
    def jvp(
        ctx: Any, t_hidden: Tensor | None, t_weight: Tensor | None, t_bias: Tensor | None, *_: Any
    ) -> Tensor:
        hidden, weight, bias, targets = ctx.saved_tensors
        out: Tensor = hidden.new_empty(len(hidden), dtype=wide(ctx.dtype))
        w = weight.to(ctx.dtype)
        for rows, h, z in _logits(ctx, hidden, weight, bias):
            tz = torch.zeros_like(z)
            if t_hidden is not None:
                tz += t_hidden[rows].to(ctx.dtype) @ w.T
            if t_weight is not None:
                tz += h @ t_weight.to(ctx.dtype).T
            if t_bias is not None:
                tz += t_bias
            tz = ctx.finish.pushed(tz, z)
            expected = z.softmax(1).mul_(tz).sum(1)
            out[rows] = tz.gather(1, targets[rows, None]).squeeze(1) - expected
        return out


def _logits(
    ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield, chunk by chunk, the rows, their hidden states, and their logits, float32 or wider."""
    w, b = weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype)
    for rows, h, output in chunks_of(hidden, w, b, ctx.dtype, ctx.chunk):
        yield rows, h, ctx.finish(output).to(wide(ctx.dtype))
