"""Sampling: what does a model reveal when it is asked again and again?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from amnesis.contracts import Attack, Benchmark, Evaluation, EvaluationSettings, Row, Subject
from amnesis.data.batches import pad_token_id
from amnesis.data.examples import Example, encode_rows
from amnesis.errors import DataError, did_you_mean
from amnesis.progress import ProgressCallback
from amnesis_evaluation.attacks.attacking import evaluated_sets, forms_of
from amnesis_evaluation.evaluator.bootstrap import Bootstrap
from amnesis_evaluation.evaluator.units import groups_of
from amnesis_evaluation.inference.answers import (
    Fit,
    Form,
    prompt_of,
    reference_of,
    stopped,
    text_of,
)
from amnesis_evaluation.inference.generation import end_tokens, generate
from amnesis_evaluation.metrics.rouge_l import rouge_l_recall, without_words


class Sampling(Attack):
    """Samples n answers to each row of a set and takes the highest ROUGE-L recall among them.

    Values are ``set/rouge_l_worst_of_<n>`` and the mean over samples, ``set/rouge_l_sampled``.
    Greedy decoding shows one answer; an attacker sees many. Source: Patil et al. 2024,
    arXiv 2309.17410 (an attack budget of B candidates).
    """

    formula: ClassVar[str] = "mean over rows of max_j ROUGE-L(a, y_j), y_1 … y_n ~ p(· | q)"
    source: ClassVar[str] = "Patil et al. 2024, arXiv 2309.17410"

    samples: int = Field(8, ge=1, description="n, answers per row")
    temperature: float = Field(1.0, gt=0, description="of the distribution that is sampled from")
    sets: tuple[str, ...] = Field(("forget",), min_length=1, description="the sets that are asked")
    seed: int = Field(0, ge=0, description="of the samples")

    def attack(
        self,
        subject: Subject,
        benchmark: Benchmark,
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
    ) -> Evaluation:
        """Sample answers and keep the worst; the model itself is not changed.

        Raises:
            DataError: ``sets`` names a set that the benchmark does not evaluate.
        """
        available, forms = evaluated_sets(benchmark), forms_of(benchmark, subject)
        evaluation = Evaluation()
        for name in self.sets:
            if name not in available:
                raise DataError(
                    f"attack 'sampling': sets: the benchmark evaluates no set {name!r}; "
                    f"{did_you_mean(name, available)}"
                )
            form = forms.get(name, Form())
            self._sample(name, subject, available[name], form, settings, evaluation, progress)
        return evaluation

    def metric_keys(self) -> tuple[str, ...]:
        """Return the keys of the worst sample and of the mean over samples."""
        return f"rouge_l_worst_of_{self.samples}", "rouge_l_sampled"

    def cost(self, benchmark: Benchmark, settings: EvaluationSettings) -> str:
        """Return the number of generations."""
        sets = evaluated_sets(benchmark)
        rows = [len(sets.get(n, ())[: settings.limit][: settings.generate_rows]) for n in self.sets]
        return (
            f"{sum(rows)} rows × {self.samples} samples = {sum(rows) * self.samples} generations "
            f"of at most {settings.max_new_tokens} tokens"
        )

    def _sample(
        self,
        name: str,
        subject: Subject,
        rows: Sequence[Row],
        form: Form,
        settings: EvaluationSettings,
        evaluation: Evaluation,
        progress: ProgressCallback | None,
    ) -> None:
        base = form.template or subject.template
        template = base.within(subject.model.config)
        rows = rows[: settings.limit][: settings.generate_rows]
        if not rows:
            evaluation.notes.append(f"set {name!r}: generate_rows is 0, so nothing was sampled")
            return
        encoded = encode_rows(rows, subject.tokenizer, template, name=name)
        fit = Fit(template, model_limits=template is not base, dropped=encoded.dropped)
        examples = [e for e in encoded.examples if fit.holds(list(e.sequences.values()))]
        evaluation.notes.extend(fit.notes(name))
        prompts = [
            prompt_of(
                e.sequences["answer"],
                subject.model,
                settings,
                self.seed,
                longest=form.max_new_tokens,
                draw=k,
            )
            for e in examples
            for k in range(self.samples)
        ]
        continuations = generate(
            subject.model,
            prompts,
            end=end_tokens(subject.model, subject.tokenizer, template),
            pad_token_id=pad_token_id(subject.tokenizer),
            batch_size=settings.batch_size,
            temperature=self.temperature,
            engine=settings.engine,
            progress=progress,
            what="sampling",
        )
        references = [reference_of(e, template, subject, form) for e in examples]
        if remark := without_words(references):
            evaluation.notes.append(f"set {name!r}: {remark}")
        repeats = [reference for reference in references for _ in range(self.samples)]
        recalls = np.array(
            [
                rouge_l_recall(reference, stopped(text_of(tokens, subject), form.stop))
                for reference, tokens in zip(repeats, continuations, strict=True)
            ]
        ).reshape(len(examples), self.samples)
        self._record(name, examples, recalls, settings, evaluation)

    def _record(
        self,
        name: str,
        examples: Sequence[Example],
        recalls: NDArray[np.float64],
        settings: EvaluationSettings,
        evaluation: Evaluation,
    ) -> None:
        """Add the values of a set; ``recalls`` are ``(examples, samples)``."""
        worst, mean = self.metric_keys()
        values = {worst: recalls.max(1), mean: recalls.mean(1)}
        self._add(name, examples, values, settings, evaluation)

    def _add(
        self,
        name: str,
        examples: Sequence[Example],
        metrics: Mapping[str, NDArray[np.float64]],
        settings: EvaluationSettings,
        evaluation: Evaluation,
    ) -> None:
        """Add the values of a set, each a mean of shares over rows with its interval."""
        bootstrap = Bootstrap(settings.bootstrap, settings.confidence, settings.seed)
        groups = groups_of([example.row for example in examples])
        for metric, values in metrics.items():
            key = f"{name}/{metric}"
            evaluation.values[key] = float(values.mean())
            interval = bootstrap.of_mean(values, "share", groups) if bootstrap.resamples else None
            if interval is not None:
                evaluation.intervals[key] = interval
            evaluation.examples.extend(
                {
                    "set": name,
                    "row": example.index,
                    "group": group,
                    "metric": metric,
                    "value": float(value),
                }
                for example, group, value in zip(
                    examples, groups or repeat(None, len(examples)), values, strict=True
                )
            )
