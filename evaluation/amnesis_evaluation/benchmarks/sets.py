"""A benchmark of question/answer sets: names them, and leaves the judgement to metrics."""

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
from amnesis.distributed.processes import from_first_rank
from amnesis_evaluation.evaluator.cache import judgement_key, remember, remembered
from amnesis_evaluation.evaluator.evaluate import judge
from amnesis_evaluation.evaluator.selection import select
from amnesis_evaluation.harness.tasks import lm_eval_values
from amnesis_evaluation.inference.answers import Forms
from amnesis_evaluation.inference.batching import Progress
from amnesis_evaluation.reports.stored import load_evaluation


class SetsBenchmark(Benchmark):
    """Judges a model on the sets that :meth:`judged_sets` gives, by metrics' names.

    ``metrics`` are the ones that a judgement makes where the settings name none: those that the
    sets do not allow are noted, one line each. A metric that is asked for is refused instead.
    """

    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = (
        "probability",
        "rouge_l",
        "extraction_strength",
        "exact_memorization",
    )

    def judged_sets(self) -> Mapping[str, Sequence[Row]]:
        """Give the sets that are judged; others than a run trains on where a benchmark says so."""
        return self.sets()

    def forms(self, template: AnyTemplate) -> Forms:
        """Say how sets are asked that are not asked by the subject's own template."""
        return {}

    def evaluate(
        self,
        subject: Subject,
        settings: EvaluationSettings,
        progress: Progress | None = None,
        *,
        retrained: Evaluation | None = None,
    ) -> Evaluation:
        """Judge a model by the settings' metrics, or by the benchmark's own.

        Raises:
            DataError: a set or the retrained model's results cannot be read.
            RecipeError: a metric that was asked for needs what is not there.
        """
        if retrained is None and settings.retrained is not None:
            retrained = load_evaluation(settings.retrained)
        chosen = self.metrics if settings.metrics is None else settings.metrics
        sets = self.judged_sets() if chosen else {}
        selection = select(
            sets, chosen, retrained=retrained is not None, optional=settings.metrics is None
        )
        forms = self.forms(subject.template)

        def whole(lm_eval: LmEvalSettings | None) -> Evaluation:
            judged = judge(subject, sets, selection, settings, progress, retrained, forms)
            return _with_tasks(judged, subject, lm_eval)

        folder, lm_eval = settings.cache, settings.lm_eval
        if folder is None:
            return whole(lm_eval)
        # Where lm-eval reads a task's own data from (the hub, a folder here), no key can tell.
        digestible = lm_eval is not None and set(lm_eval.tasks) <= set(lm_eval.data)
        inside, beside = (lm_eval, None) if digestible else (None, lm_eval)
        keyed = settings.model_copy(update={"lm_eval": inside})
        key = judgement_key(subject, sets, selection, keyed, retrained, forms)
        # One rank looks for all: what lies in another's cache would part the ranks.
        known = from_first_rank(lambda: remembered(folder, key))
        if known is None:
            known = whole(inside)
            remember(folder, key, known)
        return _with_tasks(known, subject, beside)


def _with_tasks(judged: Evaluation, subject: Subject, lm_eval: LmEvalSettings | None) -> Evaluation:
    if lm_eval is not None:
        judged.values.update(lm_eval_values(subject, lm_eval))
    return judged
