"""Whether one method is better than another: paired tests over rows and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from amnesis_evaluation.reports.comparison import Group, Run
from amnesis_evaluation.reports.paired_test import paired_test
from amnesis_evaluation.reports.stored import load_evaluation
from amnesis_evaluation.reports.tables import Number

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

LEVEL = 0.05  # of the family of tests of a pair

# The value and the group of each row, by set and metric.
_Rows = Mapping[tuple[str, str], Mapping[int, tuple[float, str | None]]]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far two methods are apart by one metric.

    Attributes:
        metric: its name, ``set/metric``.
        value: the mean of the first method less that of the second.
        interval: of that difference alone, whatever else is tested.
        p: of the paired test that there is none, likewise alone.
        p_holm: the same after Holm's correction for the metrics of the pair.
        rows: how many rows both have.
        units: how many groups they are in; as many as rows where they are in none.
    """

    metric: str
    value: float
    interval: tuple[float, float]
    p: float
    p_holm: float
    rows: int
    units: int

    @property
    def shown(self) -> bool:
        """Whether there is a difference, at :data:`LEVEL`."""
        return self.p_holm < LEVEL

    def told_of(self, name: str, *, turned: bool = False) -> str:
        """Return it in words; ``name`` is of the first method or, ``turned``, of the second."""
        sign = -1 if turned else 1
        low, high = sorted(sign * end for end in self.interval)
        basis = f"({low:+.3g} to {high:+.3g}, p {_p(self.p_holm)})"
        if not self.shown:
            return f"no difference in {self.metric} is shown {basis}"
        way = "lower" if sign * self.value < 0 else "higher"
        return f"{self.metric} of {name} is {Number(abs(self.value))} {way} {basis}"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two methods, compared by every metric of which both have the same rows' values."""

    left: Group
    right: Group
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()

    def sentence(self, forgetting: str, retention: str) -> str:
        """Return whether one is better: by forgetting, lower, and retention, higher.

        The better one is ahead in one of the two, and not behind in the other.
        """
        by_metric = {one.metric: one for one in self.differences}
        sides = [by_metric[name] for name in (forgetting, retention) if name in by_metric]
        if not sides:
            return (
                f"{self.left.name} against {self.right.name}: not tested, as they have no common "
                f"rows of {forgetting} or {retention}"
            )
        signs = [one.value * (-1 if one.metric == forgetting else 1) for one in sides]
        ahead = {sign > 0 for sign, one in zip(signs, sides, strict=True) if one.shown}
        names = [self.left.name, self.right.name]
        turned = ahead == {False}
        if turned:
            names.reverse()
        first, second = names
        if len(ahead) == 2:
            head = f"Neither {first} nor {second} is better"
        elif ahead:
            head = f"{first} is better than {second}"
        else:
            head = f"No difference between {first} and {second} is shown"
        told = "; ".join(one.told_of(first, turned=turned) for one in sides)
        return f"{head}: {told}. {self._basis(sides[0])}"

    def _basis(self, one: Difference) -> str:
        rows = f"{one.rows} rows"
        if one.units < one.rows:
            rows += f" in {one.units} groups"
        seeds = [len(group.runs) for group in (self.left, self.right)]
        whose = f"{seeds[0]} and {seeds[1]} seeds"
        if max(seeds) == 1:
            whose = "one seed each, which says nothing of others"
        elif min(seeds) < 3:
            whose += ", and fewer than three say little of others"
        count = len(self.differences)
        several = f"; each p is corrected for {count} metrics by Holm, the intervals are not"
        return f"(Paired over {rows}; {whose}{several if count > 1 else ''}.)"


def compared_pairs(groups: Sequence[Group], metrics: Sequence[str]) -> list[Pair]:
    """Return every two methods compared by ``metrics``, as far as both have their rows' values.

    Raises:
        DataError: the examples of a run cannot be read.
    """
    rows = {id(run): _rows_of(run) for group in groups for run in group.runs}
    return [_compare(left, right, metrics, rows) for left, right in combinations(groups, 2)]


def missing_examples(groups: Sequence[Group]) -> list[str]:
    """Return the folders of runs without the values of each row, which pairs are compared by."""
    return [str(run.folder) for group in groups for run in group.runs if not run.has_examples]


def _rows_of(run: Run) -> _Rows:
    if not run.has_examples:
        return {}
    rows: dict[tuple[str, str], dict[int, tuple[float, str | None]]] = {}
    for record in load_evaluation(run.folder).examples:
        of_metric = rows.setdefault((record["set"], record["metric"]), {})
        of_metric[int(record["row"])] = (float(record["value"]), record.get("group"))
    return rows


def _compare(left: Group, right: Group, metrics: Sequence[str], rows: Mapping[int, _Rows]) -> Pair:
    differences = []
    notes = []
    for metric in metrics:
        set_name, _, key = metric.rpartition("/")
        columns = [
            [rows[id(run)].get((set_name, key), {}) for run in group.runs]
            for group in (left, right)
        ]
        if not all(column for side in columns for column in side):
            continue
        digests = {run.results.sets.get(set_name) for g in (left, right) for run in g.runs}
        if len(digests - {None}) > 1:
            notes.append(
                f"{left.name} and {right.name} were evaluated on different rows of {set_name!r}; "
                f"{metric} is not tested"
            )
            continue
        difference = _difference(metric, columns, paired=_share_seeds(left, right))
        if difference is not None:
            differences.append(difference)
    adjusted = holm([one.p for one in differences])
    return Pair(
        left=left,
        right=right,
        differences=tuple(
            replace(one, p_holm=p) for one, p in zip(differences, adjusted, strict=True)
        ),
        notes=tuple(notes),
    )


def _share_seeds(left: Group, right: Group) -> bool:
    """Return whether the runs pair up by seed, in the same order.

    Two do not: the variance of two differences is too often close to 0 by chance.
    """
    seeds = [[run.seed for run in group.runs] for group in (left, right)]
    return len(seeds[0]) > 2 and None not in seeds[0] and seeds[0] == seeds[1]


def _difference(
    metric: str,
    columns: Sequence[Sequence[Mapping[int, tuple[float, str | None]]]],
    *,
    paired: bool,
) -> Difference | None:
    """Return the difference over the rows that all runs have; None of fewer than two units."""
    common = sorted(set.intersection(*(set(column) for side in columns for column in side)))
    if not common:
        return None
    names = [columns[0][0][row][1] for row in common]
    groups = None if None in names else [str(name) for name in names]
    if len(set(groups or common)) < 2:
        return None
    left, right = (_matrix(side, common) for side in columns)
    test = paired_test(left, right, groups, paired_seeds=paired, confidence=1 - LEVEL)
    return Difference(
        metric=metric,
        value=test.difference,
        interval=test.interval,
        p=test.p,
        p_holm=math.nan,
        rows=len(common),
        units=len(set(groups or common)),
    )


def _matrix(
    side: Sequence[Mapping[int, tuple[float, str | None]]], rows: Sequence[int]
) -> NDArray[float64]:
    return np.array([[column[row][0] for column in side] for row in rows])


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the given order. Source: Holm 1979."""
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
