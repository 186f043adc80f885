"""f(x; v): how a module's output changes, at fixed input, as its own parameters move along v."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jvp

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One call of a module: what it was given."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def widened(self, dtype: torch.dtype) -> Call:
        """Return the call with what autocast had narrowed in the parameters' own precision."""

        def wide(value: Any) -> Any:
            narrow = isinstance(value, torch.Tensor) and value.is_floating_point()
            return value.to(dtype) if narrow and value.element_size() < dtype.itemsize else value

        return Call(tuple(map(wide, self.args)), {k: wide(v) for k, v in self.kwargs.items()})


def tangent(module: nn.Module, call: Call, v: Mapping[str, Tensor]) -> Tensor:
    """Return the derivative of the module's output along ``v``, ``{own parameter: direction}``.

    A module that is linear in its parameters is simply run with v in their place; any other is
    differentiated forward. Parameters that are not in ``v`` stand still.
    """
    call = call.widened(next(iter(v.values())).dtype)
    with torch.no_grad():
        forward = type(module).forward
        if forward is nn.Linear.forward:
            return _linear(call.args[0], v)
        if forward is nn.Embedding.forward and module.max_norm is None:
            out = F.embedding(call.args[0], v["weight"])
            return _without_padding(module, call.args[0], out)
        if forward in _homogeneous():
            still = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
            run: Tensor = functional_call(module, {**still, **v}, call.args, dict(call.kwargs))
            return run
        moved = _differentiated(module, call, v)
        if isinstance(module, nn.Embedding):  # one that scales what it looks up
            return _without_padding(module, call.args[0], moved)
        return moved


def _linear(x: Tensor, v: Mapping[str, Tensor]) -> Tensor:
    if "weight" in v:
        return F.linear(x, v["weight"], v.get("bias"))
    return v["bias"].expand(*x.shape[:-1], -1)


def _without_padding(module: nn.Embedding, ids: Tensor, out: Tensor) -> Tensor:
    """Drop the padding row: backward gives it no gradient, though a tied head's ∇R moves it."""
    if module.padding_idx is None:
        return out
    return out.masked_fill((ids == module.padding_idx).unsqueeze(-1), 0)


def _homogeneous() -> tuple[Any, ...]:
    """Return the forwards whose output is linear in the parameters, without a constant part."""
    from transformers.pytorch_utils import Conv1D

    return Conv1D.forward, nn.LayerNorm.forward, nn.RMSNorm.forward


def _differentiated(module: nn.Module, call: Call, v: Mapping[str, Tensor]) -> Tensor:
    names = list(v)
    held = dict(module.named_parameters())

    def run(*parameters: Tensor) -> Any:
        return functional_call(
            module, dict(zip(names, parameters, strict=True)), call.args, dict(call.kwargs)
        )

    primals = tuple(held[name].detach() for name in names)
    moved: Tensor = jvp(run, primals, tuple(v[name] for name in names))[1]
    return moved
