"""Sums over processes: counts, losses and the two streams' gradients."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

K = TypeVar("K", bound=Hashable)
N = TypeVar("N", int, float)

BUCKET_ELEMENTS = 25_000_000  # about 100 MB of float32: enough to hide latency, little to copy


def world() -> tuple[int, int]:
    """Give (rank, number of processes); (0, 1) where there is no process group."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def added_over_ranks(values: dict[K, N]) -> dict[K, N]:
    """Add each value over all ranks; every rank must give the same keys."""
    if world()[1] == 1 or not values:
        return values
    import torch
    import torch.distributed as dist

    keys = sorted(values, key=str)
    kind = type(next(iter(values.values())))
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    summed = torch.tensor([values[k] for k in keys], dtype=torch.float64, device=device)
    dist.all_reduce(summed)
    return {k: kind(v) for k, v in zip(keys, summed.tolist(), strict=True)}


def sum_over_ranks(tensors: Sequence[Tensor]) -> None:
    """Sum each tensor over all ranks, in place, in buckets of a fixed size."""
    import torch
    import torch.distributed as dist

    for bucket in _buckets(tensors):
        flat = torch.cat([t.reshape(-1) for t in bucket])
        dist.all_reduce(flat)
        parts = torch.split(flat, [t.numel() for t in bucket])
        for tensor, summed in zip(bucket, parts, strict=True):
            tensor.copy_(summed.view_as(tensor))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(t.numel() for t in bucket) + tensor.numel() > BUCKET_ELEMENTS
        if bucket and (full or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def barrier() -> None:
    """Wait until every rank is here."""
    import torch.distributed as dist

    if world()[1] > 1:
        dist.barrier()
