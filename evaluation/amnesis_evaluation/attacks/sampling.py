"""Sampling: what does a model give away if it is asked again and again?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from amnesis.contracts import Attack, Benchmark, Evaluation, EvaluationSettings, Row, Subject
from amnesis.data.batches import pad_token_id
from amnesis.data.examples import encode_rows
from amnesis.errors import DataError, did_you_mean
from amnesis.progress import ProgressCallback
from amnesis_evaluation.attacks.attacking import evaluated_sets, forms_of
from amnesis_evaluation.evaluator.bootstrap import Bootstrap
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
    """Highest ROUGE-L recall of n answers sampled at a temperature, for each row of a set.

    Values are ``set/rouge_l_worst_of_<n>`` and, beside it, the mean over samples,
    ``set/rouge_l_sampled``. Greedy decoding shows one answer; an attacker sees many. Source:
    Patil et al. 2024, arXiv 2309.17410 (an attack budget of B candidates).
    """

    source: ClassVar[str] = "Patil et al. 2024, arXiv 2309.17410"

    samples: int = Field(8, ge=1, description="n, answers per row")
    temperature: float = Field(1.0, gt=0, description="of the distribution sampled from")
    sets: tuple[str, ...] = Field(("forget",), min_length=1, description="the sets that are asked")
    seed: int = Field(0, ge=0, description="of the samples")

    def attack(
        self,
        subject: Subject,
        benchmark: Benchmark,
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
    ) -> Evaluation:
        """Sample answers and keep the worst; the model itself is not changed."""
        known, forms = evaluated_sets(benchmark), forms_of(benchmark, subject)
        found = Evaluation()
        for name in self.sets:
            if name not in known:
                raise DataError(
                    f"attack 'sampling': sets: the benchmark evaluates no set {name!r}; "
                    f"{did_you_mean(name, known)}"
                )
            form = forms.get(name, Form())
            self._sample(name, subject, known[name], form, settings, found, progress)
        return found

    def _sample(
        self,
        name: str,
        subject: Subject,
        rows: Sequence[Row],
        form: Form,
        settings: EvaluationSettings,
        found: Evaluation,
        progress: ProgressCallback | None,
    ) -> None:
        whole = form.template or subject.template
        template = whole.within(subject.model.config)
        rows = rows[: settings.limit][: settings.generate_rows]
        if not rows:
            found.notes.append(f"set {name!r}: generate_rows is 0, so nothing was sampled")
            return
        encoded = encode_rows(rows, subject.tokenizer, template, name=name)
        fit = Fit(template, model_limits=template is not whole, dropped=encoded.dropped)
        examples = [e for e in encoded.examples if fit.holds(list(e.sequences.values()))]
        found.notes.extend(fit.notes(name))
        prompts = [
            prompt_of(
                e.sequences["answer"],
                subject.model,
                settings,
                self.seed + k,
                longest=form.max_new_tokens,
            )
            for e in examples
            for k in range(self.samples)
        ]
        written = generate(
            subject.model,
            prompts,
            end=end_tokens(subject.model, subject.tokenizer),
            pad_token_id=pad_token_id(subject.tokenizer),
            batch_size=settings.batch_size,
            temperature=self.temperature,
            progress=progress,
            what="sampling",
        )
        references = [reference_of(e, template, subject) for e in examples]
        if remark := without_words(references):
            found.notes.append(f"set {name!r}: {remark}")
        answers = [reference for reference in references for _ in range(self.samples)]
        recalls = np.array(
            [
                rouge_l_recall(answer, stopped(text_of(tokens, subject), form.stop))
                for answer, tokens in zip(answers, written, strict=True)
            ]
        ).reshape(len(examples), self.samples)
        bootstrap = Bootstrap(settings.bootstrap, settings.confidence, settings.seed)
        metrics = {
            f"rouge_l_worst_of_{self.samples}": recalls.max(1),
            "rouge_l_sampled": recalls.mean(1),
        }
        for metric, values in metrics.items():
            key = f"{name}/{metric}"
            found.values[key] = float(values.mean())
            if bootstrap.resamples:
                found.intervals[key] = bootstrap.of_mean(values)
            found.examples.extend(
                {"set": name, "row": e.index, "metric": metric, "value": float(value)}
                for e, value in zip(examples, values, strict=True)
            )
