"""Layers: the groups of parameters by which a G-effect is split."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

TIED = "tied_embedding"
# The names under which the architectures of transformers list their blocks.
_BLOCK = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks)\.(\d+)\.")
_ORDER = {"embedding": 0, TIED: 0, "final_norm": 2, "head": 3}  # 1: blocks, other

# The name that logged values give to the effect on each set's risk.
EFFECTS = {"forget": "unlearn", "retain": "retain"}


def layers_of(model: nn.Module) -> dict[str, str]:
    """Return the layer of each parameter, ``{parameter name: layer}``.

    A layer is ``embedding``, ``block_07`` (by its number), ``final_norm``, ``head`` or ``other``. A
    head that shares the embedding's matrix has no layer of its own: the matrix is
    ``tied_embedding``.
    """
    embedding = _parameter_ids(model, "get_input_embeddings")
    head = _parameter_ids(model, "get_output_embeddings")
    layers: dict[str, str] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in embedding & head:
            layers[name] = TIED
        elif id(parameter) in head:
            layers[name] = "head"
        else:
            layers[name] = "embedding" if id(parameter) in embedding else layer_of(name)
    return layers


def layer_of(parameter: str) -> str:
    """Return the layer that a parameter belongs to, going by its name alone."""
    block = _BLOCK.search(parameter)
    if block:
        return f"block_{int(block[1]):02d}"
    if re.search(r"lm_head|embed_out", parameter):
        return "head"
    if re.search(r"embed|wte|wpe", parameter):
        return "embedding"
    return "final_norm" if re.search(r"norm|ln_", parameter) else "other"


def is_layer(name: str) -> bool:
    """Return whether ``name`` is a layer that :func:`layers_of` may return."""
    return name in {*_ORDER, "other"} or name.startswith("block_")


def in_order(layers: Iterable[str]) -> list[str]:
    """Return the layers without repetition, in the order in which the model runs them."""
    return sorted(set(layers), key=lambda layer: (_ORDER.get(layer, 1), layer))


def _parameter_ids(model: Any, getter: str) -> set[int]:
    """Return the identities of the parameters of the embedding that ``getter`` returns."""
    try:
        module = getattr(model, getter)()
    except (AttributeError, NotImplementedError):
        return set()
    return set() if module is None else {id(p) for p in module.parameters()}


def by_layer(model: nn.Module, products: Mapping[str, float]) -> dict[str, float]:
    """Return the sums by layer, ``{layer: sum}``, of inner products by parameter name."""
    layers = layers_of(model)
    sums = dict.fromkeys(in_order(layers[name] for name in products), 0.0)
    for name, value in products.items():
        sums[layers[name]] += value
    return sums


def effect_values(
    layers: Mapping[str, Mapping[str, float]], kind: str = "", prefix: str = "g_effect"
) -> dict[str, float]:
    """Return the values to log for effects by layer, ``{"unlearn": {layer: e}, "retain": …}``.

    Each effect is logged as ``<prefix>/<effect>[/<kind>]``, the sum, and the same with
    ``/<layer>``. Where both are present, ``<prefix>/retain_over_unlearn[/<kind>]`` is their ratio:
    1 harms both sets alike, ≤ 0 does not harm the retain set. It is NaN where the unlearning effect
    is not negative, for then nothing is forgotten.
    """
    suffix = f"/{kind}" if kind else ""
    values: dict[str, float] = {}
    for effect, shares in layers.items():
        name = f"{prefix}/{effect}{suffix}"
        values[name] = sum(shares.values())
        values |= {f"{name}/{layer}": share for layer, share in shares.items()}
    unlearn, retain = (values.get(f"{prefix}/{effect}{suffix}") for effect in ("unlearn", "retain"))
    if unlearn is not None and retain is not None:
        ratio = retain / unlearn if unlearn < 0 else math.nan
        values[f"{prefix}/retain_over_unlearn{suffix}"] = ratio
    return values
