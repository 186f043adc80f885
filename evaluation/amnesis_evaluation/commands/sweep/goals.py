"""The two goals of a sweep: which metric tells forgetting, and which retention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amnesis.discovery.resolve import build_metrics
from amnesis.errors import DataError, RecipeError, did_you_mean
from amnesis.runs.results import Results
from amnesis_evaluation.benchmarks.sets import SetsBenchmark
from amnesis_evaluation.commands.sweep.settings import Goal, Sweep
from amnesis_evaluation.evaluator.selection import select
from amnesis_evaluation.reports.thresholds import UNSEEN, is_forgotten_set

if TYPE_CHECKING:
    from amnesis.runs.preflight import Prepared

UTILITY = "model_utility"


@dataclass(frozen=True, kw_only=True)
class Goals:
    """The metrics of forgetting and retention, and whether low or high values are better."""

    metrics: tuple[str, str]
    directions: tuple[str, str]

    @property
    def signs(self) -> tuple[int, int]:
        """By what to multiply both, so that low forgetting and high retention are better."""
        forgetting, retention = self.directions
        return (1 if forgetting == "minimize" else -1, 1 if retention == "maximize" else -1)

    def values(self, folder: Path) -> tuple[float, float]:
        """Return both values after the run in a folder.

        Raises:
            DataError: the run has no such value, or one that is not finite.
        """
        after = Results.read(folder).after or {}
        for metric in self.metrics:
            if metric not in after:
                raise DataError(f"{folder}: has no value {metric!r}; {did_you_mean(metric, after)}")
            if not math.isfinite(after[metric]):
                raise DataError(f"{folder}: {metric} is not a finite number")
        first, second = (after[metric] for metric in self.metrics)
        return first, second


def goals_of(sweep: Sweep, prepared: Prepared) -> Goals:
    """Return the goals that a sweep names, or else those that its benchmark's metrics allow.

    Raises:
        RecipeError: a run would have no such metric, or the benchmark has no default.
    """
    keys = _keys(prepared)
    goals = []
    for what, goal, default, direction in (
        ("forgetting", sweep.forgetting, _first_of_forgetting(keys), "minimize"),
        ("retention", sweep.retention, _first_of_retention(keys), "maximize"),
    ):
        metric = default if goal is None else goal.metric
        if metric is None:
            raise RecipeError(
                f"{what}: {prepared.benchmark.label} has no metric that would be it by default; "
                f"name one, such as {what}: {_EXAMPLES[what]}"
            )
        # An attack's values and lm-eval's have three parts, and are not known before a run.
        if goal is not None and keys and metric not in keys and metric.count("/") < 2:
            raise RecipeError(
                f"{what}: no run of this sweep has {metric!r}; {did_you_mean(metric, keys)}"
            )
        goals.append(Goal(metric=metric, direction=(goal and goal.direction) or direction))
    forgetting, retention = goals
    return Goals(
        metrics=(forgetting.metric, retention.metric),
        directions=(str(forgetting.direction), str(retention.direction)),
    )


_EXAMPLES = {
    "forgetting": "lm_eval/wmdp_bio/acc,none",
    "retention": "lm_eval/mmlu/acc,none",
}


def _keys(prepared: Prepared) -> list[str]:
    """Return the keys that results will have; none where the benchmark does not say."""
    benchmark, method = prepared.benchmark, prepared.method
    if not isinstance(benchmark, SetsBenchmark):
        return []
    metrics = method.metrics
    if metrics is None:
        metrics = build_metrics(benchmark.metrics, method.registry, optional=True)
    selection = select(benchmark.evaluated_sets(), metrics, retrained=True)
    return [
        *(f"{name}/{key}" for name, reading in selection.reading.items() for key in reading),
        *(metric.key for metric in selection.derived),
    ]


def _first_of_forgetting(keys: Sequence[str]) -> str | None:
    return _preferred([key for key in keys if is_forgotten_set(key.partition("/")[0])])


def _first_of_retention(keys: Sequence[str]) -> str | None:
    if UTILITY in keys:
        return UTILITY
    others = [key for key in keys if "/" in key and not is_forgotten_set(key.partition("/")[0])]
    trained = [key for key in others if key.startswith("retain/")]
    return _preferred(trained) or _preferred(
        [key for key in others if not key.startswith("holdout/")]
    )


def _preferred(keys: Sequence[str]) -> str | None:
    """Return the first key of a measure of memory, probability before all others."""
    for metric in ("probability", *UNSEEN, "rwku_rouge_l"):
        for key in keys:
            if key.rpartition("/")[2] == metric:
                return key
    return None
