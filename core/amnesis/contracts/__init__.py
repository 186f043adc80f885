"""Contracts: the base class of every kind of component, and nothing about any single method.

This is the one import that a plugin needs: the bases, the types in their signatures, and the errors
that they raise. During a run, batches become :class:`Scores`; terms turn those into the losses of
two streams; a combiner makes one gradient of two; probes watch; and benchmarks, metrics and attacks
evaluate the model before and after.
"""

from amnesis.contracts.attack import Attack
from amnesis.contracts.benchmark import (
    Benchmark,
    Engine,
    Evaluation,
    EvaluationSettings,
    LmEvalSettings,
    Subject,
)
from amnesis.contracts.combiner import (
    Coefficients,
    Combiner,
    CombinerWrapper,
    ElementwiseCombiner,
    FirstGradients,
    Gradients,
    MetricCombiner,
    ProjectionCombiner,
    Scope,
    TensorState,
)
from amnesis.contracts.component import Component, Registration
from amnesis.contracts.metric import (
    Answer,
    ChangeMetric,
    ChosenMetric,
    DerivedMetric,
    ExampleMetric,
    ExampleValues,
    Metric,
    Reading,
    ReadingMetric,
    SetMetric,
    TokenScores,
    ValueKind,
    metrics_of_retrained,
)
from amnesis.contracts.perturbation import (
    ActivationPerturbation,
    Direction,
    Perturbation,
    WeightPerturbation,
    Weights,
)
from amnesis.contracts.probe import Gradient, Probe, Product, RunView, StepContext
from amnesis.contracts.procedure import Procedure, Workbench
from amnesis.contracts.report import Evidence, Report, Verdict
from amnesis.contracts.stream import StreamLoss, WeightedTerm
from amnesis.contracts.term import LikelihoodTerm, StatefulTerm, Term, TermBase
from amnesis.contracts.weight import State, Weight
from amnesis.data.batches import Batch, MeanOver
from amnesis.data.examples import Example, Mixture
from amnesis.data.templates import AnyTemplate, Row
from amnesis.errors import (
    AmnesisError,
    ContractError,
    DataError,
    ModelError,
    NonFiniteError,
    PluginError,
    RecipeError,
)
from amnesis.progress import ProgressCallback
from amnesis.scoring.forward import score
from amnesis.scoring.reference import Reference
from amnesis.scoring.scores import Needs, Scores, label_logps

__all__ = [
    "ActivationPerturbation",
    "AmnesisError",
    "Answer",
    "AnyTemplate",
    "Attack",
    "Batch",
    "Benchmark",
    "ChangeMetric",
    "ChosenMetric",
    "Coefficients",
    "Combiner",
    "CombinerWrapper",
    "Component",
    "ContractError",
    "DataError",
    "DerivedMetric",
    "Direction",
    "ElementwiseCombiner",
    "Engine",
    "Evaluation",
    "EvaluationSettings",
    "Evidence",
    "Example",
    "ExampleMetric",
    "ExampleValues",
    "FirstGradients",
    "Gradient",
    "Gradients",
    "LikelihoodTerm",
    "LmEvalSettings",
    "MeanOver",
    "Metric",
    "MetricCombiner",
    "Mixture",
    "ModelError",
    "Needs",
    "NonFiniteError",
    "Perturbation",
    "PluginError",
    "Probe",
    "Procedure",
    "Product",
    "ProgressCallback",
    "ProjectionCombiner",
    "Reading",
    "ReadingMetric",
    "RecipeError",
    "Reference",
    "Registration",
    "Report",
    "Row",
    "RunView",
    "Scope",
    "Scores",
    "SetMetric",
    "State",
    "StatefulTerm",
    "StepContext",
    "StreamLoss",
    "Subject",
    "TensorState",
    "Term",
    "TermBase",
    "TokenScores",
    "ValueKind",
    "Verdict",
    "Weight",
    "WeightPerturbation",
    "WeightedTerm",
    "Weights",
    "Workbench",
    "label_logps",
    "metrics_of_retrained",
    "score",
]
