"""Inner products of gradients, precise enough to be subtracted, and of sharded tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def inner_product(left: Tensor, right: Tensor) -> Tensor:
    """Return ⟨left, right⟩ over all elements as a float64 scalar on the tensors' device.

    Half precision is widened to float32, in which products of its elements are exact. The sum over
    a tensor is taken in float32, or in float64 for float64 tensors; the result is a float64, in
    which sums over several tensors belong.
    """
    left, right = left.reshape(-1), right.reshape(-1)
    if left.element_size() < 4:
        left, right = left.float(), right.float()
    return left.dot(right.to(left.dtype)).double()


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor's elements are spread over ranks (a DTensor with a sharded placement)."""
    return any(placement.is_shard() for placement in getattr(tensor, "placements", ()))


def has_shards(model: nn.Module) -> bool:
    """Whether a model is spread over ranks, which then make each of its passes together."""
    return any(map(is_sharded, model.parameters()))


def reshard(model: nn.Module) -> None:
    """Let a model's parameters be its shards again, where FSDP2 has gathered them.

    A forward pass without a backward pass leaves the outermost parameters gathered: their
    gradients, updates and whatever else is done to the shards would then pass them by.
    """
    for module in model.modules():
        if hasattr(module, "set_requires_gradient_sync"):  # of an FSDPModule
            module.reshard()  # type: ignore[operator]


def gathered(model: nn.Module) -> dict[str, Tensor] | None:
    """Return a model's whole tensors by name, on the CPU of the first rank.

    Every rank must call it. It is None where nothing is sharded, and empty on other ranks.
    """
    import torch.distributed as dist

    if not has_shards(model):
        return None
    reshard(model)
    whole: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        if dist.get_rank() == 0:
            whole[name] = full.detach().cpu()
    return whole


def local(tensor: Tensor) -> Tensor:
    """Return this rank's elements of a DTensor; any other tensor is returned as it is."""
    elements: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return elements


def over_shards(value: Tensor, like: Tensor) -> Tensor:
    """Return the sum over all ranks of ``value``, a sum over this rank's elements of ``like``.

    ``value`` is changed in place; where ``like`` is not sharded it is returned as it is. Without
    this a sharded inner product is only the local part, and may even have the wrong sign.
    """
    if not is_sharded(like):
        return value
    import torch.distributed as dist

    mesh = like.device_mesh  # type: ignore[attr-defined]  # a DTensor has one
    for dimension, placement in enumerate(like.placements):  # type: ignore[attr-defined]
        if placement.is_shard():
            dist.all_reduce(value, group=mesh.get_group(dimension))
    return value


def over_all_shards(values: Mapping[nn.Parameter, Tensor]) -> dict[nn.Parameter, Tensor]:
    """Return :func:`over_shards` of a small tensor of each parameter, with one message for all.

    The tensors are of one shape and dtype.
    """
    import torch

    groups: dict[Any, list[nn.Parameter]] = {}
    for p in values:
        if is_sharded(p):
            layout = p.device_mesh, p.placements  # type: ignore[attr-defined]  # of a DTensor
            groups.setdefault(layout, []).append(p)
    summed = dict(values)
    for parameters in groups.values():
        stacked = torch.stack([values[p] for p in parameters])
        summed |= zip(parameters, over_shards(stacked, parameters[0]).unbind(), strict=True)
    return summed


def laid_as(value: Tensor, like: Tensor) -> Tensor:
    """Return ``value``, this rank's elements, as a DTensor with the placement of ``like``.

    Where ``like`` is not a DTensor, ``value`` is returned as it is.
    """
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
