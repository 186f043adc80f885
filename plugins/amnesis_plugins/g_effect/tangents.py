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
    """The arguments of one call of a module."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def widen(self, dtype: torch.dtype) -> Call:
        """Return the call with tensors of lower precision than ``dtype`` converted to it.

        Under autocast a module's inputs may be narrower than its parameters.
        """

        def convert(value: Any) -> Any:
            is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
            return value.to(dtype) if is_float and value.element_size() < dtype.itemsize else value

        return Call(tuple(map(convert, self.args)), {k: convert(v) for k, v in self.kwargs.items()})


def tangent(module: nn.Module, call: Call, v: Mapping[str, Tensor]) -> Tensor:
    """Return the derivative of the module's output along ``v``, in the shape of the output.

    ``v`` holds directions by the module's own parameter names; parameters that it lacks do not
    move. A module that is linear in its parameters is run with v in their place; any other is
    differentiated in forward mode.
    """
    call = call.widen(next(iter(v.values())).dtype)
    with torch.no_grad():
        forward = type(module).forward
        if forward is nn.Linear.forward:
            return _linear(call.args[0], v)
        if forward is nn.Embedding.forward and module.max_norm is None:
            out = F.embedding(call.args[0], v["weight"])
            return _without_padding(module, call.args[0], out)
        if forward in _homogeneous():
            zeros = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
            output: Tensor = functional_call(module, {**zeros, **v}, call.args, dict(call.kwargs))
            return output
        derivative = _forward_derivative(module, call, v)
        if isinstance(module, nn.Embedding):  # a subclass, such as one that scales its rows
            return _without_padding(module, call.args[0], derivative)
        return derivative


def _linear(x: Tensor, v: Mapping[str, Tensor]) -> Tensor:
    if "weight" in v:
        return F.linear(x, v["weight"], v.get("bias"))
    return v["bias"].expand(*x.shape[:-1], -1)


def _without_padding(module: nn.Embedding, ids: Tensor, out: Tensor) -> Tensor:
    """Return ``out`` with 0 at padding tokens.

    Backward gives the padding row no gradient here, though ∇R of a tied head has values for it.
    """
    if module.padding_idx is None:
        return out
    return out.masked_fill((ids == module.padding_idx).unsqueeze(-1), 0)


def _homogeneous() -> tuple[Any, ...]:
    """Return the forward functions that are linear in the parameters, with no constant part."""
    from transformers.pytorch_utils import Conv1D

    return Conv1D.forward, nn.LayerNorm.forward, nn.RMSNorm.forward


def _forward_derivative(module: nn.Module, call: Call, v: Mapping[str, Tensor]) -> Tensor:
    names = list(v)
    values = dict(module.named_parameters())

    def run(*parameters: Tensor) -> Any:
        return functional_call(
            module, dict(zip(names, parameters, strict=True)), call.args, dict(call.kwargs)
        )

    primals = tuple(values[name].detach() for name in names)
    derivative: Tensor = jvp(run, primals, tuple(v[name] for name in names))[1]
    return derivative
