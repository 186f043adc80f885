"""Relearning: how few steps bring back what was forgotten?"""

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

    On forget rows it asks how much the rest of the forget set comes back with them: ``unseen`` are
    the forget rows that were not among the k. On another set (``retain``, ``facts``) it asks
    whether forgetting outlasts unrelated training. Values are ``set/metric@step``; ``@0`` is the
    model as it came. What relearning gives a model that never knew is no sign of hidden
    knowledge: ``never_knew`` puts it through the same, as ``never_knew/set/metric@step``.
    Source: Hu et al. 2024, arXiv 2406.13356; unrelated text: Łucki et al. 2024, arXiv 2409.18025.
    """

    source: ClassVar[str] = "Hu et al. 2024, arXiv 2406.13356; Łucki et al. 2024, arXiv 2409.18025"

    rows: int = Field(8, ge=1, description="k, how many rows are trained on: the first of the set")
    rows_of: str = Field("forget", description="the set that they are of")
    steps: int = Field(20, ge=1, description="optimizer steps")
    every: int = Field(5, ge=1, description="evaluate every k-th step, and the last")
    batch_size: int = Field(8, ge=1, description="rows per step")
    learning_rate: float = Field(1e-4, gt=0, description="of AdamW, constant")
    sets: tuple[str, ...] = Field(
        ("forget",), min_length=1, description="the sets that are evaluated along the way"
    )
    metrics: tuple[str, ...] = Field(
        ("probability", "extraction_strength"), description="what is evaluated along the way"
    )
    never_knew: str | None = Field(
        None, description="folder or hub name of a model that never saw the forget set"
    )
    seed: int = Field(0, ge=0, description="of the order of rows")

    def attack(
        self,
        subject: Subject,
        benchmark: Benchmark,
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
    ) -> Evaluation:
        """Relearn on a copy, and on a model that never knew where one is given."""
        known, forms = evaluated_sets(benchmark), dict(forms_of(benchmark, subject))
        if strangers := [name for name in self.sets if name not in known]:
            raise DataError(
                f"attack 'relearning': sets: the benchmark evaluates no set {strangers[0]!r}; "
                f"{did_you_mean(strangers[0], known)}"
            )
        if "forget" in forms:
            forms["unseen"] = forms["forget"]
        taught = self._taught(benchmark.sets())
        evaluated = {name: list(known[name]) for name in self.sets}
        if self.rows_of == "forget" and "forget" in evaluated:
            template = forms.get("forget", Form()).template or subject.template
            shown = {_text(subject, template, row) for row in taught}
            unseen = [r for r in evaluated["forget"] if _text(subject, template, r) not in shown]
            if unseen:
                evaluated["unseen"] = unseen
        curve = self._curve(subject, taught, evaluated, settings, progress, forms)
        if self.never_knew is not None:
            stranger = _other(subject, self.never_knew)
            other = self._curve(stranger, taught, evaluated, settings, progress, forms)
            curve.values.update({f"never_knew/{k}": v for k, v in other.values.items()})
            curve.intervals.update({f"never_knew/{k}": v for k, v in other.intervals.items()})
        return curve

    def _taught(self, sets: Mapping[str, Sequence[Row]]) -> list[Row]:
        if self.rows_of not in sets:
            raise DataError(
                f"attack 'relearning': rows_of: the benchmark has no set {self.rows_of!r}; "
                f"{did_you_mean(self.rows_of, sets)}"
            )
        return list(sets[self.rows_of])[: self.rows]

    def _curve(
        self,
        subject: Subject,
        taught: Sequence[Row],
        evaluated: Mapping[str, Sequence[Row]],
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
            found = self.evaluated(student, evaluated, settings, forms=forms)
            curve.values.update({f"{k}@{step}": v for k, v in found.values.items()})
            curve.intervals.update({f"{k}@{step}": v for k, v in found.intervals.items()})
            curve.notes.extend(note for note in found.notes if note not in curve.notes)
            if progress is not None:
                progress("relearning", step, self.steps)

        evaluate_at(0)
        Unlearner(
            student.model,
            student.tokenizer,
            Risk(),
            training={
                "steps": self.steps,
                "batch_size": min(self.batch_size, len(taught)),
                "learning_rate": self.learning_rate,
                "schedule": "constant",
            },
            template=subject.template,
            seed=self.seed,
            callbacks=[_after_steps(evaluate_at, self.every)],
            device=student.model.device.type,
        ).fit(taught)
        return curve


def _after_steps(evaluate_at: Callable[[int], None], every: int) -> Any:
    from transformers import TrainerCallback

    class Evaluating(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % every == 0 or state.global_step == state.max_steps:
                evaluate_at(state.global_step)

    return Evaluating()


def _text(subject: Subject, template: AnyTemplate, row: Row) -> tuple[str, str] | None:
    try:
        return template.prompt_of(row, subject.tokenizer), template.answer_of(row)
    except DataError:  # rows that are taught in one form may not be asked in another
        return None


def _other(subject: Subject, path: str) -> Subject:
    from amnesis.models.loading import ModelSettings, load_model, load_tokenizer

    place = ModelSettings(path=path)
    model = load_model(place, device=subject.model.device)
    return Subject(model, load_tokenizer(place), subject.template)
