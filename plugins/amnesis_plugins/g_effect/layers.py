"""Layers: the groups of parameters over which a G-effect is split."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

TIED = "tied_embedding"
_BLOCK = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks)\.(\d+)\.")
_ORDER = {"embedding": 0, TIED: 0, "final_norm": 2, "head": 3}


def layers_of(model: nn.Module) -> dict[str, str]:
    """Return each parameter's layer: ``embedding``, ``block_07``, ``final_norm``, ``head``.

    What is none of these is ``other``. A tied head has no group of its own: its one matrix is
    ``tied_embedding``.
    """
    embedding, head = (_own(model, f"get_{which}_embeddings") for which in ("input", "output"))
    named: dict[str, str] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in embedding & head:
            named[name] = TIED
        elif id(parameter) in head:
            named[name] = "head"
        else:
            named[name] = "embedding" if id(parameter) in embedding else layer_of(name)
    return named


def layer_of(parameter: str) -> str:
    """Return the layer that a parameter's name alone tells."""
    block = _BLOCK.search(parameter)
    if block:
        return f"block_{int(block[1]):02d}"
    if re.search(r"lm_head|embed_out", parameter):
        return "head"
    if re.search(r"embed|wte|wpe", parameter):
        return "embedding"
    return "final_norm" if re.search(r"norm|ln_", parameter) else "other"


def is_layer(name: str) -> bool:
    """Whether ``name`` is one of those that :func:`layers_of` gives."""
    return name in {*_ORDER, "other"} or name.startswith("block_")


def in_order(layers: Iterable[str]) -> list[str]:
    """Sort layers as the model runs them."""
    return sorted(set(layers), key=lambda layer: (_ORDER.get(layer, 1), layer))


def _own(model: Any, getter: str) -> set[int]:
    """Return the identities of the input or output embedding's parameters."""
    try:
        module = getattr(model, getter)()
    except (AttributeError, NotImplementedError):
        return set()
    return set() if module is None else {id(p) for p in module.parameters()}


# The effect on the forget set's risk is the unlearning effect, that on the retain set's the
# retaining one.
EFFECTS = {"forget": "unlearn", "retain": "retain"}


def by_layer(model: nn.Module, products: Mapping[str, float]) -> dict[str, float]:
    """Add inner products up by layer, ``{layer: sum}``, from ``{parameter name: product}``."""
    layers = layers_of(model)
    sums = dict.fromkeys(in_order(layers[name] for name in products), 0.0)
    for name, value in products.items():
        sums[layers[name]] += value
    return sums


def effect_values(
    layers: Mapping[str, Mapping[str, float]], kind: str = "", prefix: str = "g_effect"
) -> dict[str, float]:
    """Return the values to log of effects by layer, ``{"unlearn": {layer: e}, "retain": …}``.

    ``<prefix>/unlearn[/kind]``, the same ``/<layer>``, and, where both effects are there,
    ``<prefix>/retain_over_unlearn[/kind]``: 1 harms both sets alike, ≤ 0 does no harm. It is NaN
    where the first is not negative, as it must be to forget.
    """
    end = f"/{kind}" if kind else ""
    values: dict[str, float] = {}
    for effect, by in layers.items():
        values[f"{prefix}/{effect}{end}"] = sum(by.values())
        values |= {f"{prefix}/{effect}{end}/{layer}": value for layer, value in by.items()}
    unlearn, retain = (values.get(f"{prefix}/{effect}{end}") for effect in ("unlearn", "retain"))
    if unlearn is not None and retain is not None:
        ratio = retain / unlearn if unlearn < 0 else math.nan
        values[f"{prefix}/retain_over_unlearn{end}"] = ratio
    return values
