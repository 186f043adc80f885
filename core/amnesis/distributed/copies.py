"""Frozen copies of models that fully_shard has sharded: sharded as these are, never whole."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from amnesis.distributed.shards import has_shards, reshard
from amnesis.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model as it is, which does not train, in evaluation mode.

    Where the model is sharded so is the copy: each rank copies its own elements.

    Raises:
        RecipeError: a peft model is sharded.
    """
    reshard(model)
    if not has_shards(model):
        return copy.deepcopy(model).eval().requires_grad_(False)
    if hasattr(model, "peft_config"):
        raise RecipeError(
            "the reference of a sharded model with an adapter that says something already cannot "
            "be copied: merge the adapter into the model first"
        )
    import torch
    from torch.distributed.fsdp import FSDPModule

    # FSDP gives a module that it shards another class, and none of these can be copied.
    kind: Any = next(c for c in type(model).__mro__ if not issubclass(c, FSDPModule))
    with torch.device("meta"):
        blank = kind(model.config)
    _set_parameters(blank, model, _like_on_meta)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        path, _, leaf = name.rpartition(".")
        blank.get_submodule(path)._buffers[leaf] = buffer.clone()
    shard_as(blank, model)
    _set_parameters(blank, model, lambda p: p.detach().clone())
    frozen: PreTrainedModel = blank.eval().requires_grad_(False)
    return frozen


def shard_as(whole: nn.Module, model: nn.Module) -> None:
    """Shard a model as another of the same modules is, and nothing of it beyond a forward pass."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    groups: dict[int, list[str]] = {}
    for name, module in reversed(list(model.named_modules())):  # children before their parents
        if hasattr(module, "set_requires_gradient_sync"):
            state = module._get_fsdp_state()
            groups.setdefault(id(state), []).append(name)
    for names in groups.values():
        first = model.get_submodule(names[0])
        state = first._get_fsdp_state()  # type: ignore[operator]
        mesh = next(m for p in first.parameters() if (m := getattr(p, "device_mesh", None)))
        fully_shard(
            [whole.get_submodule(name) for name in reversed(names)],
            mesh=mesh,
            reshard_after_forward=True,
            mp_policy=getattr(state, "_mp_policy", MixedPrecisionPolicy()),
        )


def _set_parameters(blank: nn.Module, model: nn.Module, made: Any) -> None:
    """Set the parameters of a model to what is made of another's; what that ties stays tied."""
    import torch

    shared: dict[int, nn.Parameter] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        path, _, leaf = name.rpartition(".")
        if id(p) not in shared:
            shared[id(p)] = torch.nn.Parameter(made(p), requires_grad=False)
        blank.get_submodule(path)._parameters[leaf] = shared[id(p)]


def _like_on_meta(p: Tensor) -> Tensor:
    import torch

    return torch.empty(p.shape, dtype=p.dtype, device="meta")
