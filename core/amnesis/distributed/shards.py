"""Inner products of gradients, exact enough to be compared and differenced."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def inner_product(left: Tensor, right: Tensor) -> Tensor:
    """Return ⟨left, right⟩ over all elements as a float64 scalar on their device.

    Half precision is widened to float32 first, so that products are exact; the sum of a tensor is
    taken by the linear-algebra library, sums over tensors belong in float64.
    """
    left, right = left.reshape(-1), right.reshape(-1)
    if left.element_size() < 4:
        left, right = left.float(), right.float()
    return left.dot(right.to(left.dtype)).double()


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor's elements are spread over ranks (a DTensor with a sharded placement)."""
    return any(placement.is_shard() for placement in getattr(tensor, "placements", ()))


def local(tensor: Tensor) -> Tensor:
    """Return the elements that this rank holds; the tensor itself where it is not spread."""
    own: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return own


def over_shards(value: Tensor, like: Tensor) -> Tensor:
    """Add a sum over this rank's elements of ``like`` to those of the other ranks.

    Without it a sharded inner product is only the local part, and may have the wrong sign.
    """
    if not is_sharded(like):
        return value
    import torch.distributed as dist

    mesh = like.device_mesh  # type: ignore[attr-defined]  # a DTensor has one
    for dimension, placement in enumerate(like.placements):  # type: ignore[attr-defined]
        if placement.is_shard():
            dist.all_reduce(value, group=mesh.get_group(dimension))
    return value


def laid_as(value: Tensor, like: Tensor) -> Tensor:
    """Return this rank's elements the form of ``like``: a DTensor of the same placement, or as is."""
    if not hasattr(like, "placements"):
        return value
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        value,
        like.device_mesh,  # type: ignore[attr-defined]
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
