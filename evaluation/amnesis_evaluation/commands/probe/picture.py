"""Heat maps of G-effects as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from amnesis_plugins.g_effect.pictures import NO_MATPLOTLIB, TITLES, heat_maps

if TYPE_CHECKING:
    from amnesis_plugins.g_effect import EffectTable


def shares_by_layer(table: EffectTable, set_name: str) -> dict[str, dict[str, float]]:
    """Return each objective's effects by layer, divided by the size of its unlearning effect.

    Raw effects of different objectives have no common scale; these do. Those of a regularizer, or
    of an objective that does not forget, are divided by the size of its retaining effect. Where
    that is no more than rounding there are no shares: noise over noise would look like a finding.
    """
    totals = table.totals("objective", "set")
    scales = {
        name: "forget" if table.ratio(name) == table.ratio(name) else "retain"
        for name in table.objectives
    }
    significant = {name for name, scale in scales.items() if not table.negligible(name, scale)}
    shares: dict[str, dict[str, float]] = {name: {} for name in table.objectives}
    for (name, layer), value in table.totals("objective", "layer", set=set_name).items():
        if name in significant:
            shares[name][layer] = value / abs(totals[name, scales[name]])
    return shares


def save_heat_maps(path: Path, tables: Mapping[str, EffectTable]) -> str | None:
    """Write heat maps of objectives × layers on both sets as a PNG file.

    Return None, or a note for the user where matplotlib is missing. Without a table by layer there
    is nothing to draw.
    """
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
