"""A benchmark of question/answer sets: names them, and leaves the evaluation to metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from amnesis.contracts import (
    Benchmark,
    Evaluation,
    EvaluationSettings,
    LmEvalSettings,
    Row,
    Subject,
)
from amnesis.data.templates import AnyTemplate
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import build_metrics
from amnesis.distributed.processes import from_first_rank
from amnesis.progress import ProgressCallback
from amnesis_evaluation.evaluator.cache import evaluation_key, remember, remembered
from amnesis_evaluation.evaluator.evaluate import evaluate
from amnesis_evaluation.evaluator.selection import select
from amnesis_evaluation.harness.tasks import lm_eval_values
from amnesis_evaluation.inference.answers import Forms
from amnesis_evaluation.reports.stored import load_evaluation


class SetsBenchmark(Benchmark):
    """Evaluates a model on the sets that :meth:`evaluated_sets` gives, by metrics' names.

    Metrics that are still names are looked up among what is installed.
    """

    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = (
        "probability",
        "rouge_l",
        "extraction_strength",
        "exact_memorization",
    )

    def evaluated_sets(self) -> Mapping[str, Sequence[Row]]:
        """Return the sets that are evaluated; others than a run trains on where a benchmark says so."""
        return self.sets()

    def forms(self, template: AnyTemplate) -> Forms:
        """Say how sets are asked that are not asked by the subject's own template."""
        return {}

    def evaluate(
        self,
        subject: Subject,
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
        *,
        retrained: Evaluation | None = None,
    ) -> Evaluation:
        """Evaluate a model by the settings' metrics, or by the benchmark's own.

        Raises:
            DataError: a set or the retrained model's results cannot be read.
            RecipeError: a metric that was asked for needs what is not there.
        """
        if retrained is None and settings.retrained is not None:
            retrained = load_evaluation(settings.retrained)
        own = settings.metrics is None
        chosen = build_metrics(
            self.metrics if own else settings.metrics or (), default_registry(), optional=own
        )
        sets = self.evaluated_sets() if chosen else {}
        selection = select(sets, chosen, retrained=retrained is not None)
        forms = self.forms(subject.template)

        def whole(lm_eval: LmEvalSettings | None) -> Evaluation:
            made = evaluate(subject, sets, selection, settings, progress, retrained, forms)
            return _with_tasks(made, subject, lm_eval)

        folder, lm_eval = settings.cache, settings.lm_eval
        if folder is None:
            return whole(lm_eval)
        # Where lm-eval reads a task's own data from (the hub, a folder here), no key can tell.
        digestible = lm_eval is not None and set(lm_eval.tasks) <= set(lm_eval.data)
        inside, beside = (lm_eval, None) if digestible else (None, lm_eval)
        keyed = settings.model_copy(update={"lm_eval": inside})
        key = evaluation_key(subject, sets, selection, keyed, retrained, forms)
        # One rank looks for all: what lies in another's cache would part the ranks.
        known = from_first_rank(lambda: remembered(folder, key))
        if known is None:
            known = whole(inside)
            remember(folder, key, known)
        return _with_tasks(known, subject, beside)


def _with_tasks(made: Evaluation, subject: Subject, lm_eval: LmEvalSettings | None) -> Evaluation:
    if lm_eval is not None:
        made.values.update(lm_eval_values(subject, lm_eval))
    return made
