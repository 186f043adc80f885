"""The G-effect: what an objective does to the risk on what must go and on what must stay.

Three formulations of one quantity, named for the questions they answer: by loss token
(``measure_tokens``), by position or example × layer (``ghost_shares``), and in total or per layer
with ∇R at hand (``products_with``). ``measure`` chooses among them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amnesis_plugins.g_effect.by_token import measure_tokens
    from amnesis_plugins.g_effect.directions import (
        RiskGradient,
        products_with,
        risk_gradient,
        risk_value,
        trained,
        update_products,
    )
    from amnesis_plugins.g_effect.entanglement import Entanglement, measure_entanglement
    from amnesis_plugins.g_effect.ghost import Ghost, ghost_shares
    from amnesis_plugins.g_effect.layers import (
        EFFECTS,
        by_layer,
        effect_values,
        in_order,
        layers_of,
    )
    from amnesis_plugins.g_effect.measurement import measure
    from amnesis_plugins.g_effect.table import EffectTable

# Most of these need torch: a probe's class must be readable without it.
_LAZY = {
    "EFFECTS": "layers",
    "EffectTable": "table",
    "Entanglement": "entanglement",
    "Ghost": "ghost",
    "RiskGradient": "directions",
    "by_layer": "layers",
    "effect_values": "layers",
    "ghost_shares": "ghost",
    "in_order": "layers",
    "layers_of": "layers",
    "measure_entanglement": "entanglement",
    "measure_tokens": "by_token",
    "measure": "measurement",
    "products_with": "directions",
    "risk_gradient": "directions",
    "risk_value": "directions",
    "trained": "directions",
    "update_products": "directions",
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
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
