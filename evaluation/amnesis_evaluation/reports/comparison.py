"""Comparison of runs: over seeds, by the Pareto front, and at equal forgetting."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from amnesis.errors import DataError, RecipeError, did_you_mean
from amnesis.runs.recipe import PartialRecipe
from amnesis.runs.results import RESULTS, Results


@dataclass(frozen=True)
class Run:
    """A run or an evaluation on disk: its folder, its recipe if it has one, and its results."""

    folder: Path
    recipe: PartialRecipe | None
    results: Results

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read the folder of a run or an evaluation, or the results file in it.

        Raises:
            DataError: its results cannot be read, or have no values after the run.
            RecipeError: its recipe cannot be read.
        """
        results = Results.read(folder)
        if results.after is None:
            raise DataError(
                f"{folder}: its results have no 'after' with values by set/metric; evaluate the "
                f"model first"
            )
        if folder.is_file() and folder.name == RESULTS:
            folder = folder.parent
        recipe = folder / "recipe.yaml"
        return cls(folder, PartialRecipe.load(recipe) if recipe.is_file() else None, results)

    @property
    def values(self) -> dict[str, float]:
        """The values after the run, by ``set/metric``."""
        return self.results.after or {}

    @property
    def before(self) -> dict[str, float]:
        """The values before the run; empty where none were evaluated."""
        return self.results.before or {}

    @property
    def identity(self) -> str:
        """The recipe without its seed: runs that agree in it are repetitions."""
        return str(self.folder.resolve()) if self.recipe is None else self.recipe.but_the_seed()

    @property
    def name(self) -> str:
        """The method in short, ``wga + kl, sago``; the folder's name where there is no recipe."""
        method = None if self.recipe is None else self.recipe.method_name
        return self.folder.resolve().name if method is None else method

    def path_of(self, metric: str) -> list[tuple[float, float]]:
        """Return the (step, value) pairs of a metric along the run, from before to after."""
        points = {0.0: self.before[metric]} if metric in self.before else {}
        points |= self._along(metric)
        if metric in self.values and self.results.steps is not None:
            points[float(self.results.steps)] = self.values[metric]
        return sorted(points.items())

    def evaluated_along(self, metric: str) -> bool:
        """Return whether the metric was evaluated during the run, not only before and after it."""
        return bool(self._along(metric))

    def _along(self, metric: str) -> dict[float, float]:
        return {e["step"]: e[metric] for e in self.results.trajectory if metric in e}


@dataclass(frozen=True)
class Group:
    """Repetitions of one recipe with several seeds."""

    name: str
    runs: tuple[Run, ...]

    def values_of(self, metric: str) -> list[float]:
        """Return the metric's value of each run that has it."""
        return [run.values[metric] for run in self.runs if metric in run.values]

    def mean(self, metric: str) -> float:
        """Return the mean of the metric over the runs; NaN where no run has it."""
        values = self.values_of(metric)
        return float(np.mean(values)) if values else math.nan


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Return groups of repetitions with distinct names, in the order in which runs are given.

    Raises:
        RecipeError: a folder is given twice, and would count as a repetition.
    """
    by_identity: dict[str, list[Run]] = {}
    places: set[Path] = set()
    for run in runs:
        if (place := run.folder.resolve()) in places:
            raise RecipeError(f"{run.folder}: is given twice; give each run once")
        places.add(place)
        by_identity.setdefault(run.identity, []).append(run)
    groups = [Group(repeats[0].name, tuple(repeats)) for repeats in by_identity.values()]
    folders: dict[str, list[Path]] = {}
    for group in groups:
        folders.setdefault(group.name, []).append(group.runs[0].folder.resolve())
    return [
        Group(_distinct_name(group, folders[group.name]), group.runs)
        if len(folders[group.name]) > 1
        else group
        for group in groups
    ]


def _distinct_name(group: Group, folders: Sequence[Path]) -> str:
    """Return the name with the shortest end of its path that no other of ``folders`` has."""
    folder = group.runs[0].folder.resolve()
    tails = (Path(*folder.parts[-count:]) for count in range(1, len(folder.parts) + 1))
    tail = next(t for t in tails if sum(f.parts[-len(t.parts) :] == t.parts for f in folders) == 1)
    return f"{group.name} ({tail})" if group.runs[0].recipe is not None else str(tail)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean (NaN of no values) and its standard error (None of fewer than two)."""
    if len(values) < 2:
        return (float(values[0]) if values else math.nan), None
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return for each (forgetting, retention) whether no other point is at least as good in both.

    Forgetting is better where it is lower, retention where it is higher. Equal points are on the
    front together; a point with a NaN is not on it.
    """

    def dominates(other: tuple[float, float], point: tuple[float, float]) -> bool:
        return other != point and other[0] <= point[0] and other[1] >= point[1]

    return [
        not any(math.isnan(v) for v in point) and not any(dominates(o, point) for o in points)
        for point in points
    ]


@dataclass(frozen=True)
class Target:
    """A value of a metric at which methods are compared: ``forget/probability=0.1``."""

    metric: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Target:
        """Return the target that a text ``metric=value`` states.

        Raises:
            RecipeError: the text is not of that form.
        """
        metric, equals, value = text.partition("=")
        try:
            return cls(metric.strip(), float(value) if equals else math.nan)
        except ValueError:
            raise RecipeError(
                f"--at {text!r}: {value!r} is not a number; write --at forget/probability=0.1"
            ) from None

    def __post_init__(self) -> None:
        if not self.metric or not math.isfinite(self.value):
            raise RecipeError("--at: write a metric and a number, --at forget/probability=0.1")


def at_target(run: Run, target: Target, metrics: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Return the step at which a run first reaches the target, and the other metrics there.

    Both are interpolated linearly between the evaluations before and after that step. A metric that
    was not evaluated during the run is left out, as nothing is known of it between the two ends.

    Raises:
        DataError: the run never reaches the target, or has no trajectory of its metric.
    """
    path = run.path_of(target.metric)
    if len(path) < 2 or not run.evaluated_along(target.metric):
        raise DataError(
            f"{run.folder}: has no trajectory of {target.metric!r}; evaluate it while it runs "
            f"(evaluate.every, evaluate.during) or {did_you_mean(target.metric, run.values)}"
        )
    step = _first_crossing(path, target.value)
    if step is None:
        values = [value for _, value in path]
        raise DataError(
            f"{run.folder}: {target.metric} never is {target.value:g}; it goes from "
            f"{min(values):.3g} to {max(values):.3g}"
        )
    values_there = {}
    for metric in metrics:
        points = run.path_of(metric)
        by_step = dict(points)
        if step in by_step:
            values_there[metric] = by_step[step]
        elif run.evaluated_along(metric) and points[0][0] < step < points[-1][0]:
            steps, values = map(list, zip(*points, strict=True))
            values_there[metric] = float(np.interp(step, steps, values))
    return step, values_there


def _first_crossing(path: Sequence[tuple[float, float]], value: float) -> float | None:
    for (left, a), (right, b) in pairwise(path):
        if a == value:
            return left
        if b == value:
            return right
        if min(a, b) <= value <= max(a, b):
            return left + (right - left) * (value - a) / (b - a)
    return None
