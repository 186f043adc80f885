"""Heat maps of G-effects as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amnesis.g_effect import EffectTable

NO_MATPLOTLIB = "no picture was drawn: matplotlib is missing; pip install 'amnesis[report]'"
TITLES = {
    "forget": "on the forget set (negative: forgets)",
    "retain": "on the retain set (negative: damages)",
}


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
    drawn = _figure(2, 1.2 + 0.35 * len(table.objectives))
    if drawn is None:
        return NO_MATPLOTLIB
    figure, panels = drawn
    for panel, set_name in zip(panels, ("forget", "retain"), strict=True):
        _heat_map(panel, shares_by_layer(table, set_name), f"G-effect {TITLES[set_name]}")
    figure.savefig(path, dpi=150)
    return None


def save_layers_by_step(
    path: Path, trajectory: Sequence[Mapping[str, float]], prefix: str = "g_effect"
) -> str | None:
    """Draw layers × steps of a run's trajectory; give a line saying why not where it cannot be."""
    drawn = _figure(2, 2.6)
    if drawn is None:
        return NO_MATPLOTLIB
    figure, panels = drawn
    effects = (("unlearn", "forget"), ("retain", "retain"))
    for panel, (effect, set_name) in zip(panels, effects, strict=True):
        steps = [v for v in trajectory if f"{prefix}/{effect}" in v]
        start = f"{prefix}/{effect}/"
        layers = [k for k in (steps[0] if steps else {}) if k.startswith(start)]
        layers = [k for k in layers if "/" not in k.removeprefix(start)]
        scales = {v["step"]: abs(v[f"{prefix}/{effect}"]) or 1.0 for v in steps}
        rows = {
            k.removeprefix(start): {
                f"{v['step']:g}": v[k] / scales[v["step"]] for v in steps if k in v
            }
            for k in layers
        }
        _heat_map(panel, rows, f"share of each step's G-effect {TITLES[set_name]}")
    figure.savefig(path, dpi=150)
    return None


def _figure(panels: int, height: float) -> tuple[Any, Any] | None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(9, panels * height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(panels, 1)


def _heat_map(panel: Any, rows: Mapping[str, Mapping[str, float]], title: str) -> None:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    values = [[row.get(column, float("nan")) for column in columns] for row in rows.values()]
    size = max((abs(v) for row in values for v in row if v == v), default=1.0) or 1.0
    panel.set_title(title, fontsize=10)
    if not columns:
        return
    image = panel.imshow(values, cmap="RdBu", vmin=-size, vmax=size, aspect="auto")
    step = max(1, len(columns) // 24)
    panel.set_xticks(range(0, len(columns), step), columns[::step], rotation=45, ha="right")
    panel.set_yticks(range(len(rows)), list(rows))
    panel.figure.colorbar(image, ax=panel)
