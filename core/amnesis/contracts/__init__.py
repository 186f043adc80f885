"""What a component promises: one contract a file, and nothing about any one method."""

from __future__ import annotations

from amnesis.contracts.attack import Attack
from amnesis.contracts.benchmark import (
    Benchmark,
    Evaluation,
    EvaluationSettings,
    LmEvalSettings,
    Row,
    Subject,
)
from amnesis.contracts.combiner import Combiner, ElementwiseCombiner, ProjectionCombiner
from amnesis.contracts.component import Component
from amnesis.contracts.metric import (
    Answer,
    ChangeMetric,
    DerivedMetric,
    ExampleMetric,
    ExampleValues,
    Metric,
    ReadingMetric,
    SetMetric,
    TokenScores,
)
from amnesis.contracts.probe import Gradient, Probe, Product, RunView, StepContext
from amnesis.contracts.term import LikelihoodTerm, Term, TermBase

__all__ = [
    "Answer",
    "Attack",
    "Benchmark",
    "ChangeMetric",
    "Combiner",
    "Component",
    "DerivedMetric",
    "ElementwiseCombiner",
    "Evaluation",
    "EvaluationSettings",
    "ExampleMetric",
    "ExampleValues",
    "Gradient",
    "LikelihoodTerm",
    "LmEvalSettings",
    "Metric",
    "Probe",
    "Product",
    "ProjectionCombiner",
    "ReadingMetric",
    "Row",
    "RunView",
    "SetMetric",
    "StepContext",
    "Subject",
    "Term",
    "TermBase",
    "TokenScores",
]
