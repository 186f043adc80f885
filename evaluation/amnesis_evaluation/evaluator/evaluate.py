"""The evaluation of one model over sets: answers, values, intervals, notes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from amnesis.contracts import (
    Answer,
    DerivedMetric,
    Evaluation,
    EvaluationSettings,
    ExampleMetric,
    Row,
    SetMetric,
    Subject,
)
from amnesis.errors import DataError
from amnesis.progress import ProgressCallback
from amnesis_evaluation.evaluator.bootstrap import Bootstrap
from amnesis_evaluation.evaluator.selection import Selection, describe
from amnesis_evaluation.inference.answers import Asked, Forms, SetAnswers, answers_of

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    from amnesis.contracts import ExampleValues, ReadingMetric


def evaluate(
    subject: Subject,
    sets: Mapping[str, Sequence[Row]],
    selection: Selection,
    settings: EvaluationSettings,
    progress: ProgressCallback | None = None,
    retrained: Evaluation | None = None,
    forms: Forms | None = None,
) -> Evaluation:
    """Evaluate ``subject`` by the selected metrics; each set is read once, whatever their number.

    A metric that fails is noted, and the others go on.

    Raises:
        DataError: a row lacks a field, or a set has no usable example.
    """
    asked = {name: Asked.by(metrics.values()) for name, metrics in selection.reading.items()}
    answered = answers_of(subject, sets, asked, settings, progress, forms)
    evaluated = _Evaluated(settings, selection.notes)
    for name, metrics in selection.reading.items():
        evaluated.take_up(name, sets[name], answered[name])
        for metric in metrics.values():
            evaluated.read(name, metric, answered[name])
    for derived in selection.derived:
        evaluated.derive(derived, retrained)
    return evaluated.evaluation


def example_values(evaluation: Evaluation) -> dict[tuple[str, str], NDArray[float64]]:
    """Return a evaluation's example values by set and metric, in the order of the records."""
    found: dict[tuple[str, str], list[float]] = {}
    for record in evaluation.examples:
        found.setdefault((record["set"], record["metric"]), []).append(float(record["value"]))
    return {key: np.array(values) for key, values in found.items()}


class _Evaluated:
    """What has been evaluated so far."""

    def __init__(self, settings: EvaluationSettings, notes: Sequence[str]) -> None:
        self.evaluation = Evaluation(notes=list(notes))
        self._settings = settings
        self._bootstrap = Bootstrap(settings.bootstrap, settings.confidence, settings.seed)
        self._values: dict[tuple[str, str], NDArray[float64]] = {}

    def take_up(self, set_name: str, rows: Sequence[Row], answered: SetAnswers) -> None:
        self.evaluation.data[set_name] = digest_of(list(rows)[: self._settings.limit])
        self.evaluation.notes.extend(answered.notes)

    def read(self, set_name: str, metric: ReadingMetric, answered: SetAnswers) -> None:
        key = f"{set_name}/{metric.key}"
        readable = [
            (row, answer)
            for row, answer in zip(answered.rows, answered.answers, strict=True)
            if metric.reads != "generation" or answer.generated is not None
        ]
        if not readable:
            self.evaluation.notes.append(
                f"metric {key} has no value: it reads generated answers, and generate_rows is "
                f"{self._settings.generate_rows}"
            )
            return
        try:
            if isinstance(metric, ExampleMetric):
                self._read_examples(set_name, metric, readable)
            elif isinstance(metric, SetMetric):
                self._read_set(key, metric, [answer for _, answer in readable])
            if remark := metric.remark([answer for _, answer in readable]):
                self.evaluation.notes.append(f"metric {key}: {remark}")
        except Exception as error:  # a stranger's metric may raise anything
            self.evaluation.notes.append(f"metric {key} failed: {describe(error)}")

    def _read_examples(
        self, set_name: str, metric: ExampleMetric, readable: Sequence[tuple[int, Answer]]
    ) -> None:
        values = np.array([metric.value(answer) for _, answer in readable], dtype=np.float64)
        key, finite = f"{set_name}/{metric.key}", np.isfinite(values)
        self.evaluation.examples.extend(
            {"set": set_name, "row": row, "metric": metric.key, "value": float(value)}
            for (row, _), value, kept in zip(readable, values, finite, strict=True)
            if kept
        )
        if not finite.all():
            count = int((~finite).sum())
            raise ValueError(f"{count} of {values.size} examples have no finite value")
        self._values[set_name, metric.key] = values
        self.evaluation.values[key] = float(values.mean())
        if self._bootstrap.resamples:
            self.evaluation.intervals[key] = self._bootstrap.of_mean(values)

    def _read_set(self, key: str, metric: SetMetric, answers: Sequence[Answer]) -> None:
        self.evaluation.values[key] = _finite(metric.value(answers))
        if self._bootstrap.resamples:
            self.evaluation.intervals[key] = self._bootstrap.of(
                lambda drawn: metric.value([answers[i] for i in drawn]), len(answers)
            )

    def derive(self, metric: DerivedMetric, retrained: Evaluation | None) -> None:
        wanted = [(name, part.key) for name, parts in metric.parts.items() for part in parts]
        try:
            own = _picked(self._values, wanted, "this evaluation lacks")
            other = None
            if metric.needs_retrained and retrained is not None:
                other = _picked(
                    example_values(retrained),
                    wanted,
                    "the retrained model's results lack; evaluate that model with the same metrics",
                )
                self._compare_rows(metric, retrained, own, other)
            self.evaluation.values[metric.key] = _finite(metric.value(own, other))
        except Exception as error:  # a stranger's metric may raise anything
            self.evaluation.notes.append(f"metric {metric.key} failed: {describe(error)}")
            return
        if not self._bootstrap.resamples:
            return
        try:
            interval = self._bootstrap.of_derived(metric.value, own, other)
            self.evaluation.intervals[metric.key] = _finite(interval[0]), _finite(interval[1])
        except Exception as error:  # some draw of the examples may leave it undefined
            self.evaluation.notes.append(f"metric {metric.key} has no interval: {describe(error)}")

    def _compare_rows(
        self,
        metric: DerivedMetric,
        retrained: Evaluation,
        own: ExampleValues,
        other: ExampleValues,
    ) -> None:
        """Note which sets were other rows where the retrained model was evaluated."""
        for name, parts in metric.parts.items():
            here, there = self.evaluation.data[name], retrained.data.get(name, "")
            counts = [(own[name, p.key].size, other[name, p.key].size) for p in parts]
            differ = next((f" ({a} here, {b} there)" for a, b in counts if a != b), "")
            if differ or (there and there != here):
                self.evaluation.notes.append(
                    f"metric {metric.key}: the retrained model was evaluated on other rows of the set "
                    f"{name!r}{differ}; evaluate it on the same data"
                )


def digest_of(rows: Sequence[Row]) -> str:
    """Digest rows, to tell whether two evaluations are of the same."""
    text = json.dumps([dict(row) for row in rows], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _finite(value: float) -> float:
    if not np.isfinite(value):
        raise ValueError(f"its value is {value}")
    return value


def _picked(values: ExampleValues, wanted: Sequence[tuple[str, str]], lack: str) -> ExampleValues:
    missing = [f"{name}/{key}" for name, key in wanted if (name, key) not in values]
    if missing:
        raise DataError(f"it is made of the example values of {', '.join(missing)}, which {lack}")
    return {pair: values[pair] for pair in wanted}
