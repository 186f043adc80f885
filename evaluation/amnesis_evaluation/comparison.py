"""Runs side by side: seeds together, the Pareto front, and methods at equal forgetting."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from amnesis.errors import DataError, RecipeError, did_you_mean
from amnesis_evaluation.stored import load_results


@dataclass(frozen=True)
class Run:
    """What one run left: its recipe (empty where it has none), and its results."""

    folder: Path
    recipe: Mapping[str, Any]
    results: Mapping[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a run's or an evaluation's folder.

        Raises:
            DataError: its results or its recipe cannot be read.
        """
        import yaml

        results = load_results(folder)
        file = folder / "recipe.yaml"
        if not file.is_file():
            return cls(folder, {}, results)
        try:
            recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"{file}: not YAML: {error}") from None
        return cls(folder, recipe if isinstance(recipe, dict) else {}, results)

    @property
    def values(self) -> dict[str, float]:
        """What it came to."""
        return {key: float(value) for key, value in self.results["after"].items()}

    @property
    def before(self) -> dict[str, float]:
        """What it started from; empty where that was not judged."""
        return {key: float(value) for key, value in (self.results.get("before") or {}).items()}

    @property
    def identity(self) -> str:
        """Everything of the recipe but the seed: runs that agree in it are repetitions."""
        if not self.recipe:
            return str(self.folder)
        kept = {key: value for key, value in self.recipe.items() if key != "seed"}
        return json.dumps(kept, sort_keys=True, default=str)

    @property
    def name(self) -> str:
        """The method in short, ``wga + kl, sago``; the folder's name where there is no recipe."""
        if "objective" not in self.recipe:
            return self.folder.name
        terms = [_named(self.recipe[k]) for k in ("objective", "regularizer") if self.recipe.get(k)]
        combiner = self.recipe.get("combiner")
        return " + ".join(terms) + (f", {_named(combiner)}" if combiner else "")

    def path_of(self, metric: str) -> list[tuple[float, float]]:
        """Give (step, value) of a metric along the run, from before to after."""
        points = {0.0: self.before[metric]} if metric in self.before else {}
        for entry in self.results.get("trajectory") or []:
            if isinstance(entry.get(metric), (int, float)):
                points[float(entry["step"])] = float(entry[metric])
        if metric in self.values:
            points[float(self.results.get("steps") or 0)] = self.values[metric]
        return sorted(points.items())


@dataclass(frozen=True)
class Group:
    """Repetitions of one recipe with several seeds."""

    name: str
    runs: tuple[Run, ...]

    def values_of(self, metric: str) -> list[float]:
        """Give the metric's value of each run that has it."""
        return [run.values[metric] for run in self.runs if metric in run.values]

    def mean(self, metric: str) -> float:
        """Give the mean over seeds; not a number where no run has it."""
        found = self.values_of(metric)
        return float(np.mean(found)) if found else math.nan


def grouped(runs: Iterable[Run]) -> list[Group]:
    """Put repetitions together, in the order in which they were given; names are told apart."""
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(run.identity, []).append(run)
    groups = [Group(found[0].name, tuple(found)) for found in together.values()]
    names = [group.name for group in groups]
    return [
        group
        if names.count(group.name) == 1
        else Group(f"{group.name} ({group.runs[0].folder.name})", group.runs)
        for group in groups
    ]


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Give the mean and its standard error; the latter is None of a single value."""
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
    """Give the step at which a run first reaches the target, and the other metrics there.

    Both are interpolated linearly between the judgements before and after that step.

    Raises:
        DataError: the run never reaches it, or has no trajectory of it.
    """
    path = run.path_of(target.metric)
    if len(path) < 2:
        raise DataError(
            f"{run.folder}: has no trajectory of {target.metric!r}; judge it while it runs "
            f"(evaluate.every) or {did_you_mean(target.metric, run.values)}"
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
        if len(points) > 1:
            steps, values = map(list, zip(*points, strict=True))
            found[metric] = float(np.interp(step, steps, values))
    return step, found


def _first_crossing(path: Sequence[tuple[float, float]], value: float) -> float | None:
    for (left, a), (right, b) in pairwise(path):
        if a == value:
            return left
        if min(a, b) <= value <= max(a, b):
            return left + (right - left) * (value - a) / (b - a)
    return None


def _named(choice: Any) -> str:
    listed = choice if isinstance(choice, list) else [choice]
    names = [one["name"] if isinstance(one, Mapping) else str(one) for one in listed]
    return " + ".join(map(str, names))
