"""Relearning: how few training steps bring back what was forgotten?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from amnesis.contracts import (
    Benchmark,
    Evaluation,
    EvaluationSettings,
    Row,
    Subject,
)
from amnesis.data.templates import AnyTemplate
from amnesis.errors import DataError, did_you_mean
from amnesis.progress import ProgressCallback
from amnesis_evaluation.attacks.attacking import MetricsAttack, copied, evaluated_sets, forms_of
from amnesis_evaluation.inference.answers import Form, Forms


class Relearning(MetricsAttack):
    """Finetunes a copy for ``steps`` steps on k rows, and evaluates it along the way.

    Trained on forget rows, it shows how much of the rest of the forget set comes back with them:
    ``unseen`` holds the forget rows that were not among the k. Trained on another set (``retain``,
    ``facts``), it shows whether forgetting outlasts unrelated training. Values are named
    ``set/metric@step``; ``@0`` is the model before the attack. What a retrained model learns in
    the same steps is no sign of hidden knowledge: ``never_knew`` names such a model, which goes
    through the same; its values are named ``never_knew/set/metric@step``.
    Source: Hu et al. 2024, arXiv 2406.13356; unrelated text: Łucki et al. 2024, arXiv 2409.18025.
    """

    source: ClassVar[str] = "Hu et al. 2024, arXiv 2406.13356; Łucki et al. 2024, arXiv 2409.18025"

    rows: int = Field(8, ge=1, description="k, the number of rows trained on: the first of the set")
    rows_of: str = Field("forget", description="the set that these rows are taken from")
    steps: int = Field(20, ge=1, description="optimizer steps")
    every: int = Field(5, ge=1, description="evaluate every k-th step, and the last")
    batch_size: int = Field(8, ge=1, description="rows per step")
    learning_rate: float = Field(1e-4, gt=0, description="of AdamW, constant")
    sets: tuple[str, ...] = Field(
        ("forget",), min_length=1, description="the sets evaluated along the way"
    )
    metrics: tuple[str, ...] = Field(
        ("probability", "extraction_strength"), description="metrics evaluated along the way"
    )
    never_knew: str | None = Field(
        None, description="folder or hub name of a retrained model (it never saw the forget set)"
    )
    seed: int = Field(0, ge=0, description="of the order of rows")

    def attack(
        self,
        subject: Subject,
        benchmark: Benchmark,
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
    ) -> Evaluation:
        """Relearn on a copy of the subject, and on the retrained model where one is named.

        Raises:
            DataError: ``sets`` or ``rows_of`` names a set that the benchmark does not have.
        """
        available, forms = evaluated_sets(benchmark), dict(forms_of(benchmark, subject))
        if unknown := [name for name in self.sets if name not in available]:
            raise DataError(
                f"attack 'relearning': sets: the benchmark evaluates no set {unknown[0]!r}; "
                f"{did_you_mean(unknown[0], available)}"
            )
        if "forget" in forms:
            forms["unseen"] = forms["forget"]
        training_rows = self._training_rows(benchmark.sets())
        sets = {name: list(available[name]) for name in self.sets}
        if self.rows_of == "forget" and "forget" in sets:
            template = forms.get("forget", Form()).template or subject.template
            texts = {_text(subject, template, row) for row in training_rows}
            rest = [r for r in sets["forget"] if _text(subject, template, r) not in texts]
            if rest:
                sets["unseen"] = rest
        curve = self._curve(subject, training_rows, sets, settings, progress, forms)
        if self.never_knew is not None:
            retrained_model = _load_retrained(subject, self.never_knew)
            baseline = self._curve(retrained_model, training_rows, sets, settings, progress, forms)
            curve.values.update({f"never_knew/{k}": v for k, v in baseline.values.items()})
            curve.intervals.update({f"never_knew/{k}": v for k, v in baseline.intervals.items()})
        return curve

    def _training_rows(self, sets: Mapping[str, Sequence[Row]]) -> list[Row]:
        if self.rows_of not in sets:
            raise DataError(
                f"attack 'relearning': rows_of: the benchmark has no set {self.rows_of!r}; "
                f"{did_you_mean(self.rows_of, sets)}"
            )
        return list(sets[self.rows_of])[: self.rows]

    def _curve(
        self,
        subject: Subject,
        training_rows: Sequence[Row],
        sets: Mapping[str, Sequence[Row]],
        settings: EvaluationSettings,
        progress: ProgressCallback | None,
        forms: Forms,
    ) -> Evaluation:
        from amnesis import Unlearner
        from amnesis.contracts.stream import Risk

        curve = Evaluation()
        student = copied(subject)
        student.model.requires_grad_(True)

        def evaluate_at(step: int) -> None:
            point = self.evaluated(student, sets, settings, forms=forms)
            curve.values.update({f"{k}@{step}": v for k, v in point.values.items()})
            curve.intervals.update({f"{k}@{step}": v for k, v in point.intervals.items()})
            curve.notes.extend(note for note in point.notes if note not in curve.notes)
            if progress is not None:
                progress("relearning", step, self.steps)

        evaluate_at(0)
        Unlearner(
            student.model,
            student.tokenizer,
            Risk(),
            training={
                "steps": self.steps,
                "batch_size": min(self.batch_size, len(training_rows)),
                "learning_rate": self.learning_rate,
                "schedule": "constant",
            },
            template=subject.template,
            seed=self.seed,
            callbacks=[_after_steps(evaluate_at, self.every)],
            device=student.model.device.type,
        ).fit(training_rows)
        return curve


def _after_steps(evaluate_at: Callable[[int], None], every: int) -> Any:
    from transformers import TrainerCallback

    class AfterSteps(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % every == 0 or state.global_step == state.max_steps:
                evaluate_at(state.global_step)

    return AfterSteps()


def _text(subject: Subject, template: AnyTemplate, row: Row) -> tuple[str, str] | None:
    try:
        return template.prompt_of(row, subject.tokenizer), template.answer_of(row)
    except DataError:  # a row that can be trained on need not fit the form in which a set is asked
        return None


def _load_retrained(subject: Subject, path: str) -> Subject:
    from amnesis.models.loading import ModelSettings, load_model, load_tokenizer

    place = ModelSettings(path=path)
    model = load_model(place, device=subject.model.device)
    return Subject(model, load_tokenizer(place), subject.template)
