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

from amnesis.errors import DataError, RecipeError, did_you_mean, one_line
from amnesis_evaluation.reports.stored import RESULTS, load_results

_MEND_RECIPE = "put the run's own recipe there, or take the file away"


@dataclass(frozen=True)
class Run:
    """What one run left: its recipe (empty where it has none), and its results."""

    folder: Path
    recipe: Mapping[str, Any]
    results: Mapping[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a run's or an evaluation's folder, or the results file in it.

        Raises:
            DataError: its results or its recipe cannot be read, or hold what is no result.
        """
        results = load_results(folder)
        _check_results(folder / RESULTS if folder.is_dir() else folder, results)
        if folder.is_file() and folder.name == RESULTS:
            folder = folder.parent
        return cls(folder, _recipe(folder / "recipe.yaml"), results)

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
            return str(self.folder.resolve())
        kept = {key: value for key, value in self.recipe.items() if key != "seed"}
        return json.dumps(kept, sort_keys=True, default=str)

    @property
    def name(self) -> str:
        """The method in short, ``wga + kl, sago``; the folder's name where there is no recipe."""
        if "objective" not in self.recipe:
            return self.folder.resolve().name
        terms = [_named(self.recipe[k]) for k in ("objective", "regularizer") if self.recipe.get(k)]
        combiner = self.recipe.get("combiner")
        return " + ".join(terms) + (f", {_named(combiner)}" if combiner else "")

    def path_of(self, metric: str) -> list[tuple[float, float]]:
        """Give (step, value) of a metric along the run, from before to after."""
        points = {0.0: self.before[metric]} if metric in self.before else {}
        points |= self._along(metric)
        steps = self.results.get("steps")
        if metric in self.values and steps is not None:
            points[float(steps)] = self.values[metric]
        return sorted(points.items())

    def judged_along(self, metric: str) -> bool:
        """Whether the metric was judged while it ran, and not only before and after."""
        return bool(self._along(metric))

    def _along(self, metric: str) -> dict[float, float]:
        entries = self.results.get("trajectory") or []
        return {float(e["step"]): float(e[metric]) for e in entries if metric in e}


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
    return f"{group.name} ({tail})" if group.runs[0].recipe else str(tail)


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

    Both are interpolated linearly between the judgements before and after that step. A metric that
    was not judged while the run went on is left out: between its two ends nothing is known.

    Raises:
        DataError: the run never reaches it, or has no trajectory of it.
    """
    path = run.path_of(target.metric)
    if len(path) < 2 or not run.judged_along(target.metric):
        raise DataError(
            f"{run.folder}: has no trajectory of {target.metric!r}; judge it while it runs "
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
        elif run.judged_along(metric) and points[0][0] < step < points[-1][0]:
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


def _named(choice: Any) -> str:
    listed = choice if isinstance(choice, list) else [choice]
    names = [one["name"] if isinstance(one, Mapping) else str(one) for one in listed]
    return " + ".join(map(str, names))


def _recipe(file: Path) -> Mapping[str, Any]:
    """Read a run's recipe as far as it is shown here; empty where there is none."""
    import yaml

    if not file.is_file():
        return {}
    try:
        recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{file}: not YAML: {one_line(error)}") from None
    if not isinstance(recipe, dict) or not all(isinstance(key, str) for key in recipe):
        raise DataError(f"{file}: not a recipe, but {recipe!r:.60}; {_MEND_RECIPE}")
    for key in ("objective", "regularizer", "combiner"):
        choice = recipe.get(key)
        for one in choice if isinstance(choice, list) else [choice]:
            named = one.get("name") if isinstance(one, dict) else one
            if not isinstance(named, str) and one is not None:
                raise DataError(f"{file}: {key}: {one!r:.60} has no name; {_MEND_RECIPE}")
    try:
        json.dumps(recipe, sort_keys=True, default=str)  # what tells recipes apart
    except (TypeError, ValueError) as error:
        raise DataError(f"{file}: not a recipe: {one_line(error)}; {_MEND_RECIPE}") from None
    return recipe


def _check_results(file: Path, results: Mapping[str, Any]) -> None:
    """Refuse results of another form than a run writes, by the key that is wrong."""
    for phase in ("before", "after"):
        if results.get(phase) is not None:
            _check_values(file, phase, results[phase])
    steps = results.get("steps")
    if steps is not None and not _is_number(steps):
        raise _damaged(file, "steps", "a number", steps)
    trajectory = results.get("trajectory")
    if trajectory is not None and not isinstance(trajectory, list):
        raise _damaged(file, "trajectory", "a list", trajectory)
    for index, entry in enumerate(trajectory or ()):
        _check_values(file, f"trajectory[{index}]", entry)
        if "step" not in entry:
            raise _damaged(file, f"trajectory[{index}]", "values with their step", entry)


def _check_values(file: Path, where: str, values: Any) -> None:
    if not isinstance(values, dict):
        raise _damaged(file, where, "values by set/metric", values)
    for key, value in values.items():
        if not _is_number(value):
            raise _damaged(file, f"{where}: {key!r}", "a number", value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


def _damaged(file: Path, where: str, wanted: str, found: Any) -> DataError:
    return DataError(
        f"{file}: {where} must be {wanted}, but is {found!r:.60}; judge or run it again"
    )
