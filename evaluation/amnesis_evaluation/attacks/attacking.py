"""What attacks share: metrics of their own, copies of the subject, and a benchmark's sets."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from amnesis.contracts import (
    Attack,
    Benchmark,
    ChosenMetric,
    Evaluation,
    EvaluationSettings,
    ProgressCallback,
    Row,
    Subject,
)
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import build_metrics
from amnesis_evaluation.benchmarks.sets import SetsBenchmark
from amnesis_evaluation.evaluator.evaluate import evaluate
from amnesis_evaluation.evaluator.selection import select
from amnesis_evaluation.inference.answers import Forms


class MetricsAttack(Attack):
    """An attack that evaluates with metrics of its own.

    The metrics' names are resolved when the attack is created, so that an unknown name is refused
    before anything is computed.
    """

    metrics: tuple[str, ...] = Field(
        ("probability", "extraction_strength"), description="metrics evaluated under the attack"
    )

    _choices: tuple[ChosenMetric, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _look_up(self, info: ValidationInfo) -> Self:
        registry = (info.context or {}).get("registry") or default_registry()
        self._choices = build_metrics(self.metrics, registry)
        return self

    def metric_keys(self) -> tuple[str, ...]:
        """Return the keys of the attack's metrics."""
        return tuple(choice.metric.key for choice in self._choices)

    def evaluated(
        self,
        subject: Subject,
        sets: Mapping[str, Sequence[Row]],
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
        forms: Forms | None = None,
    ) -> Evaluation:
        """Return the evaluation of ``subject`` on ``sets`` with the metrics of the attack.

        Raises:
            RecipeError: a metric needs a set or a field that is missing.
            DataError: a row lacks a field, or a set has no usable example.
        """
        selection = select(sets, self._choices, retrained=False)
        return evaluate(subject, sets, selection, settings, progress, forms=forms)


def copied(subject: Subject) -> Subject:
    """Return the subject with a deep copy of its model, which may be modified."""
    return replace(subject, model=copy.deepcopy(subject.model))


def evaluated_sets(benchmark: Benchmark) -> Mapping[str, Sequence[Row]]:
    """Return the sets on which a benchmark evaluates a model, by name."""
    return benchmark.evaluated_sets() if isinstance(benchmark, SetsBenchmark) else benchmark.sets()


def forms_of(benchmark: Benchmark, subject: Subject) -> Forms:
    """Return the forms in which a benchmark asks its sets; empty where the template decides."""
    return benchmark.forms(subject.template) if isinstance(benchmark, SetsBenchmark) else {}
