"""Heat maps of G-effects, drawn with matplotlib if it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amnesis_plugins.g_effect.layers import is_layer

Grid = Mapping[str, Mapping[str, float]]  # {row: {column: value}}

NO_MATPLOTLIB = "no picture was drawn: matplotlib is missing; pip install 'amnesis[report]'"
TITLES = {
    "forget": "on the forget set (negative: forgets)",
    "retain": "on the retain set (negative: damages)",
}


def heat_maps(maps: Mapping[str, Grid], row_height: float = 0.35) -> Any | None:
    """Return a figure of heat maps, ``{title: values}``, one below the other.

    Positive values are blue, negative ones red; each scale is symmetric around 0, which is white.
    ``row_height`` is in inches. Without matplotlib there is no figure, but None.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    heights = [1.2 + row_height * len(grid) for grid in maps.values()]
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(maps), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, (title, grid) in zip(panels, maps.items(), strict=True):
        _draw_heat_map(panel, grid, title)
    return figure


def layers_by_step(
    trajectory: Sequence[Mapping[str, float]], prefix: str = "g_effect"
) -> dict[str, Grid]:
    """Return the effects of a run by layer and step, ``{title: {layer: {step: share}}}``.

    A share is a layer's effect over the absolute value of the step's total. The result is empty if
    the run logged no effects by layer under ``prefix``.
    """
    maps: dict[str, Grid] = {}
    for effect, set_name in (("unlearn", "forget"), ("retain", "retain")):
        total = f"{prefix}/{effect}"
        steps = [values for values in trajectory if total in values]
        names = [name for name in (steps[0] if steps else {}) if name.startswith(f"{total}/")]
        rows = {
            layer: {f"{v['step']:g}": v[f"{total}/{layer}"] / (abs(v[total]) or 1) for v in steps}
            for layer in (name.removeprefix(f"{total}/") for name in names)
            if is_layer(layer) and all(f"{total}/{layer}" in v for v in steps)
        }
        if rows:
            maps[f"share of each step's G-effect {TITLES[set_name]}"] = rows
    return maps


def layer_figures(trajectory: Sequence[Mapping[str, float]], prefix: str) -> dict[str, Any]:
    """Return ``{"<prefix>/layers": figure}``, a heat map of a run's layers × steps.

    It is empty without matplotlib, or if the run logged no effects by layer under ``prefix``.
    """
    maps = layers_by_step(trajectory, prefix)
    figure = heat_maps(maps) if maps else None
    return {} if figure is None else {f"{prefix}/layers": figure}


def _draw_heat_map(panel: Any, grid: Grid, title: str) -> None:
    columns = list(dict.fromkeys(column for row in grid.values() for column in row))
    values = [[row.get(column, float("nan")) for column in columns] for row in grid.values()]
    size = max((abs(v) for row in values for v in row if v == v), default=1.0) or 1.0
    panel.set_title(title, fontsize=10)
    if not columns:
        return
    image = panel.imshow(values, cmap="RdBu", vmin=-size, vmax=size, aspect="auto")
    step = max(1, len(columns) // 24)
    panel.set_xticks(range(0, len(columns), step), columns[::step], rotation=45, ha="right")
    panel.set_yticks(range(len(grid)), list(grid))
    panel.figure.colorbar(image, ax=panel)
