"""Runs side by side: seeds together, the Pareto front, and methods at equal forgetting."""

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
    """What one run left: its recipe, if it has one, and its results."""

    folder: Path
    recipe: PartialRecipe | None
    results: Results

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a run's or an evaluation's folder, or the results file in it.

        Raises:
            DataError: its results cannot be read, or hold no value after the run.
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
        """What it came to."""
        return self.results.after or {}

    @property
    def before(self) -> dict[str, float]:
        """What it started from; empty where that was not evaluated."""
        return self.results.before or {}

    @property
    def identity(self) -> str:
        """Everything of the recipe but the seed: runs that agree in it are repetitions."""
        return str(self.folder.resolve()) if self.recipe is None else self.recipe.but_the_seed()

    @property
    def name(self) -> str:
        """The method in short, ``wga + kl, sago``; the folder's name where there is no recipe."""
        named = None if self.recipe is None else self.recipe.method_name
        return self.folder.resolve().name if named is None else named

    def path_of(self, metric: str) -> list[tuple[float, float]]:
        """Return (step, value) of a metric along the run, from before to after."""
        points = {0.0: self.before[metric]} if metric in self.before else {}
        points |= self._along(metric)
        if metric in self.values and self.results.steps is not None:
            points[float(self.results.steps)] = self.values[metric]
        return sorted(points.items())

    def evaluated_along(self, metric: str) -> bool:
        """Whether the metric was evaluated while it ran, and not only before and after."""
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
        """Return the mean over seeds; not a number where no run has it."""
        found = self.values_of(metric)
        return float(np.mean(found)) if found else math.nan


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Put repetitions together, in the order in which they were given; names are told apart.

    Raises:
        RecipeError: a folder is given twice, and would count as a repetition.
    """
    together: dict[str, list[Run]] = {}
    seen: set[Path] = set()
    for run in runs:
        if (place := run.folder.resolve()) in seen:
            raise RecipeError(f"{run.folder}: is given twice; give each run once")
        seen.add(place)
        together.setdefault(run.identity, []).append(run)
    groups = [Group(found[0].name, tuple(found)) for found in together.values()]
    named: dict[str, list[Path]] = {}
    for group in groups:
        named.setdefault(group.name, []).append(group.runs[0].folder.resolve())
    return [
        Group(_told_apart(group, named[group.name]), group.runs)
        if len(named[group.name]) > 1
        else group
        for group in groups
    ]


def _told_apart(group: Group, folders: Sequence[Path]) -> str:
    """Add as much of the folder's path as no other of the group's name ends in."""
    own = group.runs[0].folder.resolve()
    tails = (Path(*own.parts[-count:]) for count in range(1, len(own.parts) + 1))
    tail = next(t for t in tails if sum(f.parts[-len(t.parts) :] == t.parts for f in folders) == 1)
    return f"{group.name} ({tail})" if group.runs[0].recipe is not None else str(tail)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error; the latter is None of a single value."""
    if len(values) < 2:
        return (float(values[0]) if values else math.nan), None
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Say of each (forgetting, retention) whether no other is at least as good in both.

    Forgetting is better where it is lower, retention where it is higher. Equal points are on the
    front together; a point that is not a number is not.
    """

    def beaten(point: tuple[float, float], other: tuple[float, float]) -> bool:
        as_good = other[0] <= point[0] and other[1] >= point[1]
        return as_good and other != point

    return [
        not any(math.isnan(v) for v in point) and not any(beaten(point, o) for o in points)
        for point in points
    ]


@dataclass(frozen=True)
class Target:
    """A value of a metric at which methods are compared: ``forget/probability=0.1``."""

    metric: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``metric=value``.

        Raises:
            RecipeError: it is not of that form.
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
    was not evaluated while the run went on is left out: between its two ends nothing is known.

    Raises:
        DataError: the run never reaches it, or has no trajectory of it.
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
    found = {}
    for metric in metrics:
        points = run.path_of(metric)
        known = dict(points)
        if step in known:
            found[metric] = known[step]
        elif run.evaluated_along(metric) and points[0][0] < step < points[-1][0]:
            steps, values = map(list, zip(*points, strict=True))
            found[metric] = float(np.interp(step, steps, values))
    return step, found


def _first_crossing(path: Sequence[tuple[float, float]], value: float) -> float | None:
    for (left, a), (right, b) in pairwise(path):
        if a == value:
            return left
        if b == value:
            return right
        if min(a, b) <= value <= max(a, b):
            return left + (right - left) * (value - a) / (b - a)
    return None
