"""What attacks share: their names resolved, copies of subjects, sets judged by named metrics."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from amnesis.contracts import Attack, Benchmark, Evaluation, EvaluationSettings, Row, Subject
from amnesis.discovery.resolve import component_of
from amnesis.errors import RecipeError
from amnesis_evaluation.benchmarks.sets import SetsBenchmark
from amnesis_evaluation.evaluator.evaluate import judge
from amnesis_evaluation.evaluator.selection import select
from amnesis_evaluation.inference.answers import Forms
from amnesis_evaluation.inference.batching import Progress


def attacks_of(choices: Sequence[str | Mapping[str, Any]]) -> list[Attack]:
    """Build attacks from names, or from mappings with hyper-parameters.

    Raises:
        PluginError: a name does not resolve.
        RecipeError: a hyper-parameter is wrong.
    """
    attacks = [component_of(("attack",), choice) for choice in choices]
    for attack in attacks:
        if not isinstance(attack, Attack):
            raise RecipeError(f"attacks: {attack.label} is not an attack")
    return attacks  # type: ignore[return-value]


def copied(subject: Subject) -> Subject:
    """Give the subject with a model of its own, which may be changed."""
    return replace(subject, model=copy.deepcopy(subject.model))


def judged_sets(benchmark: Benchmark) -> Mapping[str, Sequence[Row]]:
    """Give the sets that a benchmark judges."""
    return benchmark.judged_sets() if isinstance(benchmark, SetsBenchmark) else benchmark.sets()


def forms_of(benchmark: Benchmark, subject: Subject) -> Forms:
    """Give how a benchmark asks its sets."""
    return benchmark.forms(subject.template) if isinstance(benchmark, SetsBenchmark) else {}


def judged_by(
    metrics: Sequence[str],
    subject: Subject,
    sets: Mapping[str, Sequence[Row]],
    settings: EvaluationSettings,
    progress: Progress | None = None,
    forms: Forms | None = None,
) -> Evaluation:
    """Judge a subject on sets by metrics' names."""
    selection = select(sets, metrics, retrained=False)
    return judge(subject, sets, selection, settings, progress, forms=forms)
