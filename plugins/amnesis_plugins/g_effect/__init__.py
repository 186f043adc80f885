"""The G-effect ``e(L, D) = ⟨∇L, ∇R(D)⟩``: how a loss L changes the risk R(D) of a set D.

``R(D) = −mean_i ℓ_i`` over the label tokens of D, in nats. A descent step of size η along ∇L
changes R(D) by −η·e to first order, so a negative effect raises the risk: on the forget set that is
forgetting, on the retain set damage. Source: Wang et al. 2025, arXiv 2502.19301, Definition 1.

:func:`measure` returns the effects of any objectives at a model as an :class:`EffectTable`::

    table = measure(model, tokenizer, forget_rows, retain_rows, ["ga", "npo"], by=("layer",))
    table.totals("objective", "set")  # {("ga", "forget"): …, ("ga", "retain"): …, …}
    table.totals("layer", objective="ga", set="forget")
    table.ratio("ga")  # the retaining over the unlearning effect

For each split it uses the cheapest of three formulations of the same quantity. Each of them can be
used alone, with ∇R from :func:`risk_gradient` as the direction:

- by loss token: :func:`measure_tokens`, one forward-mode pass for all likelihood objectives;
- by input position, or example × layer: :func:`ghost_shares`, or :class:`Ghost` around a loss and a
  backward pass of your own;
- in total or by layer: :func:`products_with` around backward passes, or :func:`update_products`
  after an update.

:func:`measure_entanglement` tells to what extent each forget token and each retain example are lost
together. For probes, :func:`by_layer` and :func:`effect_values` turn inner products into values to
log. Of the modules, ``sets`` encodes and batches the rows to measure on, ``splits`` resolves
objectives into losses, and ``pictures`` draws heat maps.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from amnesis_plugins.g_effect.directions import (
    RiskGradient,
    products_with,
    risk_gradient,
    risk_value,
    trained,
    update_products,
)
from amnesis_plugins.g_effect.layers import EFFECTS, by_layer, effect_values, in_order, layers_of
from amnesis_plugins.g_effect.table import EffectTable

if TYPE_CHECKING:
    from amnesis_plugins.g_effect.by_token import measure_tokens
    from amnesis_plugins.g_effect.entanglement import Entanglement, measure_entanglement
    from amnesis_plugins.g_effect.ghost import Ghost, ghost_shares
    from amnesis_plugins.g_effect.measurement import measure

# These modules import torch, without which a probe's class must be readable.
_MODULES = {
    "Entanglement": "entanglement",
    "Ghost": "ghost",
    "ghost_shares": "ghost",
    "measure": "measurement",
    "measure_entanglement": "entanglement",
    "measure_tokens": "by_token",
}

__all__ = [
    "EFFECTS",
    "EffectTable",
    "Entanglement",
    "Ghost",
    "RiskGradient",
    "by_layer",
    "effect_values",
    "ghost_shares",
    "in_order",
    "layers_of",
    "measure",
    "measure_entanglement",
    "measure_tokens",
    "products_with",
    "risk_gradient",
    "risk_value",
    "trained",
    "update_products",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
