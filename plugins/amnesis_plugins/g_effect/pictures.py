"""Heat maps of G-effects, drawn by matplotlib where it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amnesis_plugins.g_effect.layers import is_layer

Rows = Mapping[str, Mapping[str, float]]  # row -> column -> value

NO_MATPLOTLIB = "no picture was drawn: matplotlib is missing; pip install 'amnesis[report]'"
TITLES = {
    "forget": "on the forget set (negative: forgets)",
    "retain": "on the retain set (negative: damages)",
}


def heat_maps(maps: Mapping[str, Rows], row_height: float = 0.35) -> Any | None:
    """Draw heat maps by title, one under the other; give the figure, None without matplotlib.

    Blue raises, red lowers; the scale of each is symmetric around white for 0.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    heights = [1.2 + row_height * len(rows) for rows in maps.values()]
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(maps), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, (title, rows) in zip(panels, maps.items(), strict=True):
        _heat_map(panel, rows, title)
    return figure


def layers_by_step(
    trajectory: Sequence[Mapping[str, float]], prefix: str = "g_effect"
) -> dict[str, Rows]:
    """Return a run's layers × steps by title, each step's shares over the size of its total.

    Empty where the run logged no effect by layer under ``prefix``.
    """
    maps: dict[str, Rows] = {}
    for effect, set_name in (("unlearn", "forget"), ("retain", "retain")):
        total = f"{prefix}/{effect}"
        steps = [values for values in trajectory if total in values]
        layers = [key for key in (steps[0] if steps else {}) if key.startswith(f"{total}/")]
        rows = {
            layer: {f"{v['step']:g}": v[f"{total}/{layer}"] / (abs(v[total]) or 1) for v in steps}
            for layer in (key.removeprefix(f"{total}/") for key in layers)
            if is_layer(layer) and all(f"{total}/{layer}" in v for v in steps)
        }
        if rows:
            maps[f"share of each step's G-effect {TITLES[set_name]}"] = rows
    return maps


def layer_figures(trajectory: Sequence[Mapping[str, float]], prefix: str) -> dict[str, Any]:
    """Return ``{<prefix>/layers: figure}`` of a run's layers × steps; empty without matplotlib."""
    maps = layers_by_step(trajectory, prefix)
    figure = heat_maps(maps) if maps else None
    return {} if figure is None else {f"{prefix}/layers": figure}


def _heat_map(panel: Any, rows: Rows, title: str) -> None:
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
