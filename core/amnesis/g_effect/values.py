"""How G-effects are named where they are logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from amnesis.g_effect.layers import in_order, layers_of

if TYPE_CHECKING:
    from torch import nn

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
    """Give the values to log of effects by layer, ``{"unlearn": {layer: e}, "retain": …}``.

    ``<prefix>/unlearn[/kind]``, the same ``/<layer>``, and, where both effects are there and the
    first is negative, as it must be to forget, ``<prefix>/retain_over_unlearn[/kind]``: 1 harms
    both sets alike, ≤ 0 does no harm.
    """
    end = f"/{kind}" if kind else ""
    values: dict[str, float] = {}
    for effect, by in layers.items():
        values[f"{prefix}/{effect}{end}"] = sum(by.values())
        values |= {f"{prefix}/{effect}{end}/{layer}": value for layer, value in by.items()}
    unlearn, retain = (values.get(f"{prefix}/{effect}{end}") for effect in ("unlearn", "retain"))
    if unlearn is not None and unlearn < 0 and retain is not None:
        values[f"{prefix}/retain_over_unlearn{end}"] = retain / unlearn
    return values
