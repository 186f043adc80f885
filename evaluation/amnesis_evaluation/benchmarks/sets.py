"""A benchmark of question/answer sets: names them, and leaves the judgement to metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from amnesis.contracts import Benchmark, Evaluation, EvaluationSettings, Row, Subject
from amnesis.distributed import world
from amnesis.templates import AnyTemplate
from amnesis_evaluation.answers import Forms
from amnesis_evaluation.batching import Progress
from amnesis_evaluation.cache import judgement_key, remember, remembered
from amnesis_evaluation.harness import lm_eval_values
from amnesis_evaluation.judge import judge
from amnesis_evaluation.selection import select
from amnesis_evaluation.stored import load_evaluation


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

        def whole() -> Evaluation:
            judged = judge(subject, sets, selection, settings, progress, retrained, forms)
            if settings.lm_eval is not None:
                judged.values.update(lm_eval_values(subject, settings.lm_eval))
            return judged

        if settings.cache is None:
            return whole()
        key = judgement_key(subject, sets, selection, settings, retrained, forms)
        known = remembered(settings.cache, key)
        if known is None:
            known = whole()
            if world()[0] == 0:
                remember(settings.cache, key, known)
        return known
