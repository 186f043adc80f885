"""The Pareto front of forgetting against retention, and of each method why it is on it or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from amnesis_evaluation.reports.comparison import Group, forgot_nothing, pareto_front
from amnesis_evaluation.reports.tables import Number

if TYPE_CHECKING:
    from amnesis_evaluation.reports.comparison import Run

MOST_DIGITS = 8


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where a method is in the picture of forgetting against retention.

    Attributes:
        group: its runs.
        forgetting: the mean of the metric of forgetting, lower for more of it; NaN if missing.
        retention: the mean of that of retention, likewise.
        idle: whether each of its runs forgot nothing, and it is on no front for that.
        on_front: whether no other method is at least as good in both.
        why: the reason for that, in words.
    """

    group: Group
    forgetting: float
    retention: float
    idle: bool
    on_front: bool
    why: str


def placed(groups: Sequence[Group], forgetting: str, retention: str) -> list[Placed]:
    """Return each method's place; the two metrics are lower and higher where they are better."""
    idle = [all(forgot_nothing(run.results, forgetting) for run in g.runs) for g in groups]
    values = [(group.mean(forgetting), group.mean(retention)) for group in groups]
    points = [
        (math.nan if nothing else value[0], value[1])
        for value, nothing in zip(values, idle, strict=True)
    ]
    front = pareto_front(points)
    best = [(group, *point) for group, point, on in zip(groups, points, front, strict=True) if on]
    places = []
    for group, value, nothing, on in zip(groups, values, idle, front, strict=True):
        if nothing:
            why = _nothing(group.runs, forgetting)
        elif missing := [n for n in (forgetting, retention) if not group.values_of(n)]:
            why = f"it has no {' and no '.join(missing)}"
        elif on:
            why = "no other forgets as much and retains more, or forgets more and retains as much"
        else:
            why = _beaten(value, best)
        places.append(
            Placed(
                group=group,
                forgetting=value[0],
                retention=value[1],
                idle=nothing,
                on_front=on,
                why=why,
            )
        )
    return places


def _nothing(runs: Sequence[Run], metric: str) -> str:
    before, after = (
        fmean([values[metric] for values in phase])
        for phase in ([run.before for run in runs], [run.values for run in runs])
    )
    return (
        f"it forgot nothing: {metric} was {Number(before)} before and is {Number(after)} after, no "
        f"lower than chance explains"
    )


def _beaten(point: tuple[float, float], best: Sequence[tuple[Group, float, float]]) -> str:
    """Return what a method on the front does better: of several, that which retains most."""
    other, forgets, retains = max(
        (one for one in best if one[1] <= point[0] and one[2] >= point[1]), key=lambda one: one[2]
    )
    parts = [
        f"{verb} {'as much' if theirs == ours else 'more'} ({_apart(theirs, ours)})"
        for verb, theirs, ours in (("forgets", forgets, point[0]), ("retains", retains, point[1]))
    ]
    return f"{other.name} {' and '.join(parts)}"


def _apart(theirs: float, ours: float) -> str:
    """Return two values with as many digits as tell them apart; of equal ones, the one."""
    if theirs == ours:
        return str(Number(theirs))
    digits = 3
    while str(Number(theirs, digits=digits)) == str(Number(ours, digits=digits)):
        if digits == MOST_DIGITS:
            break
        digits += 1
    return f"{Number(theirs, digits=digits)} against {Number(ours, digits=digits)}"
