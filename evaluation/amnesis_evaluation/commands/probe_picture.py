"""Heat maps of G-effects as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from amnesis.g_effect.pictures import NO_MATPLOTLIB, TITLES, heat_maps

if TYPE_CHECKING:
    from amnesis.g_effect import EffectTable


def shares_by_layer(table: EffectTable, set_name: str) -> dict[str, dict[str, float]]:
    """Give each objective's effects by layer over the size of its unlearning effect.

    Raw effects of different objectives have no common scale; these do. What does not forget, such
    as a regularizer, is shown over the size of its retaining effect.
    """
    forgets = table.totals("objective", set="forget")
    keeps = table.totals("objective", set="retain")
    totals = {name: e if e < 0 else keeps[name] for name, e in forgets.items()}
    found: dict[str, dict[str, float]] = {name: {} for name in table.objectives}
    for (name, layer), value in table.totals("objective", "layer", set=set_name).items():
        found[name][layer] = value / (abs(totals[name]) or 1.0)
    return found


def save_heat_maps(path: Path, tables: Mapping[str, EffectTable]) -> str | None:
    """Draw objectives × layers on both sets; give a line saying why not where it cannot be."""
    table = next((t for t in tables.values() if "layer" in t.by), None)
    if table is None:
        return None
    figure = heat_maps(
        {f"G-effect {title}": shares_by_layer(table, name) for name, title in TITLES.items()}
    )
    if figure is None:
        return NO_MATPLOTLIB
    figure.savefig(path, dpi=150)
    return None
