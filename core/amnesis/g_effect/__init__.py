"""The G-effect: what an objective does to the risk on what must go and on what must stay.

Three formulations of one quantity, named for the questions they answer: by loss token
(``measure_tokens``), by position or example × layer (``ghost_shares``), and in total or per layer
with ∇R at hand (``products_with``). ``probe`` chooses among them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amnesis.g_effect.by_token import measure_tokens
    from amnesis.g_effect.directions import RiskGradient, risk_gradient, risk_value, trained
    from amnesis.g_effect.entanglement import Entanglement, measure_entanglement
    from amnesis.g_effect.ghost import Ghost, ghost_shares
    from amnesis.g_effect.layers import in_order, layers_of
    from amnesis.g_effect.measure import probe
    from amnesis.g_effect.products import products_with, update_products
    from amnesis.g_effect.table import EffectTable
    from amnesis.g_effect.values import EFFECTS, by_layer, effect_values

# Most of these need torch: a probe's class must be readable without it.
_LAZY = {
    "EFFECTS": "values",
    "EffectTable": "table",
    "Entanglement": "entanglement",
    "Ghost": "ghost",
    "RiskGradient": "directions",
    "by_layer": "values",
    "effect_values": "values",
    "ghost_shares": "ghost",
    "in_order": "layers",
    "layers_of": "layers",
    "measure_entanglement": "entanglement",
    "measure_tokens": "by_token",
    "probe": "measure",
    "products_with": "products",
    "risk_gradient": "directions",
    "risk_value": "directions",
    "trained": "directions",
    "update_products": "products",
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
    "measure_entanglement",
    "measure_tokens",
    "probe",
    "products_with",
    "risk_gradient",
    "risk_value",
    "trained",
    "update_products",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
