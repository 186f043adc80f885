"""Logits as hidden states and the head that makes them, so that all rows never exist at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# A chunk's logits take this many bytes, in float32 or wider, and have at least so many rows: for
# fewer the head's weights would be read too often. What is computed of them takes a few times that.
CHUNK_BYTES = {"cpu": 16 << 20, "cuda": 256 << 20}
FEWEST_ROWS = 256


def rows_at_once(
    vocabulary: int, dtype: torch.dtype, device: torch.device, chunk_bytes: int | None = None
) -> int:
    """Return how many rows of logits, computed in ``dtype``, are in a chunk.

    They take ``chunk_bytes``, or what suits the device.
    """
    row = vocabulary * max(4, dtype.itemsize)
    if chunk_bytes is not None:
        return max(1, chunk_bytes // row)
    return max(FEWEST_ROWS, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"]) // row)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which sums over the vocabulary are taken: float32 of half precision."""
    import torch

    return torch.float32 if dtype.itemsize < 4 else dtype


def computing_dtype(hidden: Tensor) -> torch.dtype:
    """Return the dtype in which a head computes here: autocast's, or else that of its input."""
    import torch

    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


@dataclass(frozen=True)
class Finish:
    """What a model makes of its head's output: nothing, or logits that are scaled or soft-capped.

    Attributes:
        kind: what is done.
        by: the factor, the divisor, or the cap c of ``c·tanh(z/c)``.
    """

    kind: Literal["none", "multiplied", "divided", "capped"] = "none"
    by: float = 1.0

    def __call__(self, output: Tensor) -> Tensor:
        """Return the logits, rounded as models round them."""
        if self.kind == "multiplied":
            return output * self.by
        if self.kind == "divided":
            return output / self.by
        if self.kind == "capped":
            return (output / self.by).tanh() * self.by
        return output

    def pushed(self, tangent: Tensor, logits: Tensor) -> Tensor:
        """Return ``tangent`` times the derivative of :meth:`__call__` where it gives ``logits``.

        The derivative is of each element by itself, so this is its transpose as well.
        """
        if self.kind == "multiplied":
            return tangent * self.by
        if self.kind == "divided":
            return tangent / self.by
        if self.kind == "capped":
            return tangent * (1 - (logits / self.by).square())
        return tangent


NO_FINISH = Finish()


@dataclass(frozen=True)
class FrozenHead:
    """A head that does not change: a module whose weights do not train, or a copy of one.

    Attributes:
        module: the head, where nothing of it trains; a shard of it is gathered when it is used.
        copied: else copies of its weight and bias, sharded as they were.
        finish: what the model makes of its output.
    """

    module: nn.Module | None
    copied: tuple[Tensor, Tensor | None] | None
    finish: Finish

    @classmethod
    def of(cls, module: nn.Module, finish: Finish) -> FrozenHead:
        """Return a model's head as it is now."""
        if not any(p.requires_grad for p in module.parameters()):
            return cls(module, None, finish)
        weight, bias = _weights_of(module)
        copy = None if bias is None else bias.detach().clone()
        return cls(None, (weight.detach().clone(), copy), finish)

    def sharded_as(self, head: nn.Module) -> FrozenHead:
        """Return the same, of which a copy is sharded as a head is; all ranks must ask.

        They hold the same weights.
        """
        if self.copied is None:
            return self
        weight, bias = self.copied
        like, like_bias = _weights_of(head)
        if bias is not None and like_bias is not None:
            bias = _laid_out(bias, like_bias)
        return FrozenHead(None, (_laid_out(weight, like), bias), self.finish)

    @property
    def vocabulary(self) -> int:
        """The number of logits at a place."""
        return self._weights[0].shape[0]

    @property
    def _weights(self) -> tuple[Tensor, Tensor | None]:
        return _weights_of(self.module) if self.copied is None else self.copied

    def parameters(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias in a dtype, whole: where they are sharded all ranks must ask."""
        weight, bias = self._weights
        return _whole(weight).to(dtype), None if bias is None else _whole(bias).to(dtype)


@dataclass(frozen=True)
class FrozenLogits:
    """Logits of a frozen model, ``(rows, vocabulary)``, that are made when they are read.

    Attributes:
        hidden: what its head reads, ``(rows, width)``.
        head: the head.
    """

    hidden: Tensor
    head: FrozenHead

    def detach(self) -> FrozenLogits:
        """Return these logits, which have no gradient."""
        return self

    def whole(self) -> Tensor:
        """Return the logits of all rows."""
        return self.reader()(slice(None))

    def in_chunks(self) -> Iterator[Tensor]:
        """Yield the logits of all rows, a chunk at a time; at least one, be it empty."""
        read = self.reader()
        size = rows_at_once(self.head.vocabulary, self.hidden.dtype, self.hidden.device)
        for start in range(0, max(1, len(self.hidden)), size):
            yield read(slice(start, start + size))

    def reader(self) -> Callable[[slice], Tensor]:
        """Return a function that makes the logits of some rows; weights are gathered here, once."""
        import torch
        from torch.nn.functional import linear

        dtype = computing_dtype(self.hidden)
        with torch.no_grad():
            weight, bias = self.head.parameters(dtype)

        def read(rows: slice) -> Tensor:
            with torch.no_grad():
                return self.head.finish(linear(self.hidden[rows].to(dtype), weight, bias))

        return read


def chunks_of(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    size: int,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield ``size`` rows at a time: which they are, their hidden states, and the head's output.

    Weight and bias are in ``dtype``, as is what is yielded.
    """
    from torch.nn.functional import linear

    for start in range(0, len(hidden), size):
        rows = slice(start, start + size)
        h = hidden[rows].to(dtype)
        yield rows, h, linear(h, weight, bias)


def _weights_of(head: Any) -> tuple[Tensor, Tensor | None]:
    return head.weight, head.bias


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor as shards, if ``like`` is sharded."""
    if hasattr(tensor, "placements") or not hasattr(like, "placements"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    laid: Tensor = distribute_tensor(tensor, like.device_mesh, like.placements)  # type: ignore[attr-defined]
    return laid


def _whole(tensor: Tensor) -> Tensor:
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full.detach()
