"""The picture of several methods: forgetting against retention, and the front of the best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amnesis_evaluation.pages.charts import Axis

WIDTH, HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 20, 48
_PADDING = 0.05  # of the range of values, on both sides


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A method's point, or one of its runs: its place, its values, and bars in pixels.

    ``number`` is the method's, ``style`` how it is drawn: ``on``, ``off``, ``idle``, or of a single
    run among several ``run``.
    """

    number: int
    name: str
    style: str
    x: float
    y: float
    x_value: float
    y_value: float
    x_ends: tuple[float, float] | None = None
    y_ends: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """A point that no method moves: a model before, or a retrained one."""

    phase: str
    x: float
    y: float
    x_value: float
    y_value: float


@dataclass(frozen=True, kw_only=True)
class Front:
    """Forgetting against retention of all methods, and the edge of what the best of them reach."""

    forgetting: str
    retention: str
    x: Axis
    y: Axis
    spots: Sequence[Spot]
    fixed: Sequence[Fixed]
    edge: str
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def phases(self) -> list[str]:
        """The phases that are fixed points of it."""
        return list(dict.fromkeys(point.phase for point in self.fixed))


def front_of(record: Mapping[str, Any]) -> Front | None:
    """Return the picture of a comparison's record; None where no method has both metrics."""
    sides = (record["front"]["forgetting"], record["front"]["retention"])
    methods = [m for m in record["methods"] if all(name in m["values"] for name in sides)]
    if not methods:
        return None
    fixed = [
        (phase, point["forgetting"], point["retention"])
        for phase in ("before", "retrained")
        for point in record[phase]
    ]
    x, y = (
        _axis(
            [*_values(methods, name), *((one, other)[k] for _, one, other in fixed)],
            [end for method in methods for end in _interval(method["values"][name])],
            upright=bool(k),
        )
        for k, name in enumerate(sides)
    )
    spots = [spot for method in methods for spot in _runs(method, sides, x, y)]
    # What is on the front is drawn last, so that nothing hides it.
    order = ("idle", "off", "on")
    means = [_mean(method, sides, x, y) for method in methods]
    spots += sorted(means, key=lambda spot: order.index(spot.style))
    return Front(
        forgetting=sides[0],
        retention=sides[1],
        x=x,
        y=y,
        spots=spots,
        fixed=[
            Fixed(phase=phase, x=x.at(one), y=y.at(other), x_value=one, y_value=other)
            for phase, one, other in fixed
        ],
        edge=_edge([spot for spot in means if spot.style == "on"], x, y),
    )


def _values(methods: Sequence[Mapping[str, Any]], name: str) -> Iterator[float]:
    for method in methods:
        yield method["values"][name]["mean"]
        yield from (run["values"][name] for run in method["runs"] if name in run["values"])


def _interval(value: Mapping[str, Any]) -> tuple[float, ...]:
    """Return one standard error over seeds about the mean, or else the interval over rows."""
    if "error" in value:
        return value["mean"] - value["error"], value["mean"] + value["error"]
    return tuple(value.get("interval", ()))


def _axis(values: Sequence[float], ends: Sequence[float], *, upright: bool) -> Axis:
    low, high = min(values), max(values)
    if low >= 0 and high <= 1:
        # Where little was lost the difference would not show on a scale that begins at 0.
        least = max(0.0, min(math.floor((low - 0.05) * 10) / 10, 0.8)) if low > 0.3 else 0.0
        low, high = (least if upright else 0.0), 1.0
    else:
        low, high = min([low, *ends]), max([high, *ends])
        margin = _PADDING * ((high - low) or abs(high) or 1.0)
        low, high = low - margin, high + margin
    if upright:
        return Axis(low, high, HEIGHT - _BOTTOM, _TOP)
    return Axis(low, high, _LEFT, WIDTH - _RIGHT)


def _runs(method: Mapping[str, Any], sides: tuple[str, str], x: Axis, y: Axis) -> Iterator[Spot]:
    """Yield the single runs of a method that has several."""
    if len(method["runs"]) == 1:
        return
    for run in method["runs"]:
        if all(name in run["values"] for name in sides):
            one, other = (run["values"][name] for name in sides)
            yield Spot(
                number=method["number"],
                name=f"{method['name']}, seed {run['seed']}",
                style="run",
                x=x.at(one),
                y=y.at(other),
                x_value=one,
                y_value=other,
            )


def _mean(method: Mapping[str, Any], sides: tuple[str, str], x: Axis, y: Axis) -> Spot:
    one, other = (method["values"][name] for name in sides)
    style = "idle" if method["forgot_nothing"] else "on" if method["on_front"] else "off"
    return Spot(
        number=method["number"],
        name=method["name"],
        style=style,
        x=x.at(one["mean"]),
        y=y.at(other["mean"]),
        x_value=one["mean"],
        y_value=other["mean"],
        x_ends=_ends(one, x),
        y_ends=_ends(other, y),
    )


def _ends(value: Mapping[str, Any], axis: Axis) -> tuple[float, float] | None:
    """Return the ends of a value's bar, as far as they are inside of the picture."""
    ends = _interval(value)
    if not ends:
        return None
    low, high = (axis.at(min(max(end, axis.low), axis.high)) for end in ends)
    return low, high


def _edge(best: Sequence[Spot], x: Axis, y: Axis) -> str:
    """Return the stairs above and left of which nothing is, as an SVG polyline's points."""
    if not best:
        return ""
    stairs: list[tuple[float, float]] = []
    height = y.start
    for spot in sorted(best, key=lambda one: (one.x, one.y)):
        stairs += [(spot.x, height), (spot.x, spot.y)]
        height = spot.y
    stairs.append((x.end, height))
    return " ".join(f"{left:g},{top:g}" for left, top in stairs)
