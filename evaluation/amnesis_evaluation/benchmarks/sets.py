"""Benchmarks of sets of rows, which metrics evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from amnesis.config.problems import Problems
from amnesis.contracts import (
    Benchmark,
    Evaluation,
    EvaluationSettings,
    LmEvalSettings,
    Row,
    Subject,
)
from amnesis.data.examples import encode_rows
from amnesis.data.templates import AnyTemplate
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import build_metrics
from amnesis.distributed.processes import from_first_rank
from amnesis.errors import AmnesisError
from amnesis.progress import ProgressCallback
from amnesis_evaluation.evaluator.cache import evaluation_key, remember, remembered
from amnesis_evaluation.evaluator.evaluate import evaluate
from amnesis_evaluation.evaluator.selection import Selection, select
from amnesis_evaluation.harness.tasks import check_tasks, lm_eval_values
from amnesis_evaluation.inference.answers import Form, Forms
from amnesis_evaluation.inference.generation import check_engine
from amnesis_evaluation.reports.stored import load_evaluation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MANY = 400  # generated answers from which on an evaluation is slow on most machines


class SetsBenchmark(Benchmark):
    """Evaluates a model on the sets that :meth:`evaluated_sets` returns.

    A benchmark of your own needs :meth:`sets` alone, and may name other ``metrics``. Metrics
    that are given by name are looked up among those installed.
    """

    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = (
        "probability",
        "rouge_l",
        "extraction_strength",
        "exact_memorization",
    )

    def evaluated_sets(self) -> Mapping[str, Sequence[Row]]:
        """Return the sets that a model is evaluated on; by default those of :meth:`sets`."""
        return self.sets()

    def forms(self, template: AnyTemplate) -> Forms:
        """Return the forms of those sets that are not asked in the subject's own ``template``."""
        return {}

    def check(
        self,
        settings: EvaluationSettings,
        template: AnyTemplate,
        tokenizer: PreTrainedTokenizerBase,
        *,
        retrained: bool = False,
    ) -> None:
        """Refuse what an evaluation would refuse: metrics, rows, results, engine, lm-eval's tasks.

        Raises:
            RecipeError: listing what is wrong.
        """
        problems = Problems()
        problems.attempt("evaluate.engine", check_engine, settings.engine)
        if settings.retrained is not None:
            problems.attempt("evaluate.retrained", load_evaluation, settings.retrained)
        if settings.lm_eval is not None:
            problems.attempt("evaluate.lm_eval", check_tasks, settings.lm_eval, tokenizer)
        known = retrained or settings.retrained is not None
        chosen = problems.attempt("evaluate.metrics", self._selection, settings, retrained=known)
        if chosen is not None:
            sets, selection = chosen
            forms = self.forms(template)
            for name in selection.reading:
                form = forms.get(name, Form()).template or template
                rows = list(sets[name])[: settings.limit]
                problems.attempt(f"set {name!r}", encode_rows, rows, tokenizer, form, name=name)
        problems.raise_any("the evaluation")

    def cost(self, settings: EvaluationSettings) -> str | None:
        """Return how many texts one evaluation scores, and how many it generates."""
        try:
            sets, selection = self._selection(settings, retrained=True)
        except AmnesisError:
            return None
        scored = generated = 0
        for name, metrics in selection.reading.items():
            rows = len(list(sets[name])[: settings.limit])
            scored += rows
            if any(metric.reads == "generation" for metric in metrics.values()):
                limit = settings.generate_rows
                generated += rows if limit is None else min(rows, limit)
        line = f"an evaluation: {scored} rows scored"
        if generated:
            line += f", {generated} answers of at most {settings.max_new_tokens} tokens generated"
        if generated >= _MANY:
            line += ", which is what takes long: evaluate.generate_rows lowers it"
        if settings.lm_eval is not None:
            line += f", and lm-eval's {', '.join(settings.lm_eval.tasks)}"
        return line

    def _selection(
        self, settings: EvaluationSettings, *, retrained: bool
    ) -> tuple[Mapping[str, Sequence[Row]], Selection]:
        """Return the sets that metrics are read from, and the metrics by set."""
        is_default = settings.metrics is None
        metrics = build_metrics(
            self.metrics if is_default else settings.metrics or (),
            default_registry(),
            optional=is_default,
        )
        sets = self.evaluated_sets() if metrics else {}
        return sets, select(sets, metrics, retrained=retrained)

    def evaluate(
        self,
        subject: Subject,
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
        *,
        retrained: Evaluation | None = None,
    ) -> Evaluation:
        """Evaluate a model by the settings' metrics, or by the benchmark's own.

        ``retrained`` takes precedence over the results that the settings name. Where the settings
        name a cache, an evaluation in it is returned instead of being repeated.

        Raises:
            DataError: a set or the retrained model's results cannot be read.
            RecipeError: a metric of the settings needs a set, field or model that is missing.
        """
        if retrained is None and settings.retrained is not None:
            retrained = load_evaluation(settings.retrained)
        sets, selection = self._selection(settings, retrained=retrained is not None)
        forms = self.forms(subject.template)

        def evaluate_with(lm_eval: LmEvalSettings | None) -> Evaluation:
            evaluation = evaluate(subject, sets, selection, settings, progress, retrained, forms)
            return _with_tasks(evaluation, subject, lm_eval)

        folder, lm_eval = settings.cache, settings.lm_eval
        if folder is None:
            return evaluate_with(lm_eval)
        # Only local files can be part of the key; what the hub holds under a name may change.
        is_local = lm_eval is not None and set(lm_eval.tasks) <= set(lm_eval.data)
        cacheable, uncacheable = (lm_eval, None) if is_local else (None, lm_eval)
        key_settings = settings.model_copy(update={"lm_eval": cacheable})
        key = evaluation_key(subject, sets, selection, key_settings, retrained, forms)
        # The first rank looks for all: ranks that disagree on a hit would wait for each other.
        evaluation, damage = from_first_rank(lambda: remembered(folder, key))
        if evaluation is None:
            evaluation = evaluate_with(cacheable)
            remember(folder, key, evaluation)
            evaluation.notes.extend(damage)
        return _with_tasks(evaluation, subject, uncacheable)


def _with_tasks(
    evaluation: Evaluation, subject: Subject, lm_eval: LmEvalSettings | None
) -> Evaluation:
    if lm_eval is not None:
        evaluation.values.update(lm_eval_values(subject, lm_eval))
    return evaluation
