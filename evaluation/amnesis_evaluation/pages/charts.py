"""Pictures as geometry, which templates draw as SVG: they follow the page's colours and fonts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from amnesis_evaluation.reports.thresholds import QUALITY, UNSEEN, is_forgotten_set

if TYPE_CHECKING:
    from amnesis.runs.results import Results

MOST_PANELS, MOST_COLUMNS = 4, 60
SHAPES = {"before": "circle", "after": "disc", "retrained": "diamond"}


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return where a value is, in pixels."""
        span = (self.high - self.low) or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 2)

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """Return about ``count`` round values, each with its place and its text."""
        span = self.high - self.low
        if span <= 0:
            return [(self.at(self.low), f"{self.low:g}")]
        raw = span / count
        power = 10 ** math.floor(math.log10(raw))
        step = min((digit * power for digit in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        values = [k * step for k in range(first, last + 1)]
        return [(self.at(value), f"{value:.6g}".replace("-", "−")) for value in values]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A phase's point: its shape, its place, and the ends of its intervals in pixels."""

    phase: str
    x: float
    y: float
    x_value: float
    y_value: float
    x_ends: tuple[float, float] | None = None
    y_ends: tuple[float, float] | None = None

    @property
    def shape(self) -> str:
        """What it is drawn as."""
        return SHAPES[self.phase]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Forgetting against retention of one set, by one measure."""

    set_name: str
    forget: str
    retain: str
    x: Axis
    y: Axis
    marks: Sequence[Mark]
    path: Sequence[tuple[float, float, float, float, int]] = ()  # x, y, both values, step

    @property
    def line(self) -> str:
        """The way from before over the path to after, as an SVG polyline's points."""
        ends = {mark.phase: (mark.x, mark.y) for mark in self.marks}
        steps = [(x, y) for x, y, *_ in self.path]
        whole = [ends.get("before"), *steps, ends.get("after")]
        return " ".join(f"{point[0]:g},{point[1]:g}" for point in whole if point is not None)


WIDTH, HEIGHT = 340, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 16, 44


def panels(results: Results) -> list[Panel]:
    """Return forgetting against retention, a panel for each set that must stay; at most four.

    Of the measures that both sets have, the one evaluated along the run is taken, or the first.
    """
    phases = results.phases()
    made = []
    sets = dict.fromkeys(
        name.partition("/")[0]
        for name in results.after or {}
        if name.count("/") == 1 and not is_forgotten_set(name.partition("/")[0])
    )
    for set_name in sets:
        if set_name == "holdout":
            continue
        pairs = [
            (f"forget/{measure}", f"{set_name}/{measure}")
            for measure in UNSEEN
            if all(f"{s}/{measure}" in (results.after or {}) for s in ("forget", set_name))
        ]
        if not pairs:
            continue
        along = [pair for pair in pairs if any(pair[0] in e for e in results.trajectory)]
        forget, retain = (along or pairs)[0]
        if sum(forget in v and retain in v for v in phases.values()) > 1:
            made.append(_panel(results, set_name, forget, retain))
    return made[:MOST_PANELS]


def _panel(results: Results, set_name: str, forget: str, retain: str) -> Panel:
    x = Axis(0.0, 1.0, _LEFT, WIDTH - _RIGHT)
    values = [v[retain] for v in results.phases().values() if retain in v]
    values += [entry[retain] for entry in results.trajectory if retain in entry]
    # Where little was lost the difference would not show on a scale that begins at 0.
    low = math.floor((min(values) - 0.05) * 10) / 10 if min(values) > 0.3 else 0.0
    y = Axis(max(0.0, min(low, 0.8)), 1.0, HEIGHT - _BOTTOM, _TOP)
    marks = []
    for phase, known in results.phases().items():
        if forget in known and retain in known:
            ends = results.intervals.get(phase, {})
            marks.append(
                Mark(
                    phase=phase,
                    x=x.at(known[forget]),
                    y=y.at(known[retain]),
                    x_value=known[forget],
                    y_value=known[retain],
                    x_ends=_ends(x, ends.get(forget)),
                    y_ends=_ends(y, ends.get(retain)),
                )
            )
    path = [
        (x.at(entry[forget]), y.at(entry[retain]), entry[forget], entry[retain], int(entry["step"]))
        for entry in results.trajectory
        if forget in entry and retain in entry
    ]
    return Panel(set_name=set_name, forget=forget, retain=retain, x=x, y=y, marks=marks, path=path)


def _ends(axis: Axis, ends: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if ends is None else (axis.at(ends[0]), axis.at(ends[1]))


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve: its name, the class that styles it, and its points."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]

    @property
    def text(self) -> str:
        """The points as an SVG polyline's."""
        return " ".join(f"{x:g},{y:g}" for x, y in self.points)


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Curves over the steps of a run, on one scale."""

    label: str
    x: Axis
    y: Axis
    lines: Sequence[Line]
    steps: Sequence[int]


WIDE, LOW = 720, 240


def curves(
    trajectory: Sequence[Mapping[str, float]], names: Mapping[str, tuple[str, str]], label: str
) -> Curves | None:
    """Return logged values over the steps, ``{name: (shown name, style)}``; None without any."""
    logged = {
        name: [(entry["step"], entry[name]) for entry in trajectory if name in entry]
        for name in names
    }
    points = [point for path in logged.values() for point in path]
    if len(points) < 2:
        return None
    x = Axis(0, max(step for step, _ in points), 64, WIDE - 16)
    low, high = min(v for _, v in points), max(v for _, v in points)
    y = Axis(min(low, 0.0), max(high, 0.0), LOW - 40, 16)
    lines = [
        Line(name=shown, style=style, points=[(x.at(s), y.at(v)) for s, v in logged[name]])
        for name, (shown, style) in names.items()
        if logged[name]
    ]
    return Curves(
        label=label, x=x, y=y, lines=lines, steps=sorted({int(step) for step, _ in points})
    )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a heat map: its place, how strong it is (0 to 8), and its sign."""

    x: float
    y: float
    strength: int
    negative: bool


@dataclass(frozen=True, kw_only=True)
class Heat:
    """Layers × steps, each per unit of its step's forgetting."""

    title: str
    good: bool  # whether negative values are what was wanted
    rows: Sequence[str]
    cells: Sequence[Cell]
    cell_width: float
    width: float
    height: float
    x: Axis
    largest: str


CELL = 20
STRENGTHS = 8


def heat(grid: Mapping[str, Mapping[str, float]], title: str, *, good: bool) -> Heat:
    """Return a heat map of ``{layer: {step: value}}``; neighbouring steps share a column.

    ``good`` says that negative values are what was wanted.
    """
    steps = list(dict.fromkeys(step for row in grid.values() for step in row))
    per_column = max(1, math.ceil(len(steps) / MOST_COLUMNS))
    groups = [steps[i : i + per_column] for i in range(0, len(steps), per_column)]
    left, width = 130.0, float(WIDE)
    cell_width = round((width - left - 16) / len(groups), 3)
    table = {
        layer: [fmean([row[s] for s in group if s in row] or [0.0]) for group in groups]
        for layer, row in grid.items()
    }
    # One step where next to nothing was forgotten would make all others pale.
    sizes = sorted(abs(value) for row in table.values() for value in row)
    size = sizes[math.ceil(0.98 * len(sizes)) - 1] or 1.0
    cells = [
        Cell(
            x=round(left + column * cell_width, 2),
            y=8 + index * CELL,
            strength=min(STRENGTHS, round(STRENGTHS * abs(value) / size)),
            negative=value < 0,
        )
        for index, row in enumerate(table.values())
        for column, value in enumerate(row)
    ]
    sums = {layer: sum(map(abs, row)) for layer, row in table.items()}
    return Heat(
        title=title,
        good=good,
        rows=list(table),
        cells=[cell for cell in cells if cell.strength],
        cell_width=cell_width,
        width=width,
        height=8 + CELL * len(table) + 34,
        x=Axis(float(steps[0]), max(float(steps[-1]), float(steps[0]) + 1), left, width - 16),
        largest=max(sums, key=lambda layer: sums[layer]),
    )


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A phase's value and interval on a scale from 0 to 1, for a picture inside a table."""

    phase: str
    x: float
    ends: tuple[float, float] | None

    @property
    def shape(self) -> str:
        """What it is drawn as."""
        return SHAPES[self.phase]


SPOT = Axis(0.0, 1.0, 6, 134)


def spots(
    metric: str, values: Mapping[str, float], ends: Mapping[str, tuple[float, float]]
) -> list[Spot]:
    """Return where a metric's phases lie between 0 and 1; nothing of one that has other limits."""
    name = metric.rpartition("/")[2]
    if name not in {*QUALITY} - {"ngram_entropy", "perplexity"} or not _within(values.values()):
        return []
    return [
        Spot(phase=phase, x=SPOT.at(value), ends=_ends(SPOT, ends.get(phase)))
        for phase, value in values.items()
    ]


def _within(values: Iterable[float]) -> bool:
    return all(0 <= value <= 1 for value in values)
