"""What attacks share: metrics of their own, copies of subjects, a benchmark's sets."""

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
    """An attack with metrics of its own, looked up when it is created."""

    metrics: tuple[str, ...] = Field(
        ("probability", "extraction_strength"), description="what is evaluated under the attack"
    )

    _chosen: tuple[ChosenMetric, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _look_up(self, info: ValidationInfo) -> Self:
        registry = (info.context or {}).get("registry") or default_registry()
        self._chosen = build_metrics(self.metrics, registry)
        return self

    def evaluated(
        self,
        subject: Subject,
        sets: Mapping[str, Sequence[Row]],
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
        forms: Forms | None = None,
    ) -> Evaluation:
        """Return the evaluation of a subject on sets by these metrics."""
        selection = select(sets, self._chosen, retrained=False)
        return evaluate(subject, sets, selection, settings, progress, forms=forms)


def copied(subject: Subject) -> Subject:
    """Return the subject with a model of its own, which may be changed."""
    return replace(subject, model=copy.deepcopy(subject.model))


def evaluated_sets(benchmark: Benchmark) -> Mapping[str, Sequence[Row]]:
    """Return the sets that a benchmark evaluates."""
    return benchmark.evaluated_sets() if isinstance(benchmark, SetsBenchmark) else benchmark.sets()


def forms_of(benchmark: Benchmark, subject: Subject) -> Forms:
    """Return how a benchmark asks its sets."""
    return benchmark.forms(subject.template) if isinstance(benchmark, SetsBenchmark) else {}
