"""Evaluates a model on sets: from answers to values, intervals and notes."""

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
from amnesis.distributed.processes import from_first_rank
from amnesis.errors import AmnesisError, DataError, one_line
from amnesis.progress import ProgressCallback
from amnesis_evaluation.evaluator.bootstrap import Bootstrap
from amnesis_evaluation.evaluator.kept import answer_records
from amnesis_evaluation.evaluator.selection import Selection
from amnesis_evaluation.evaluator.units import groups_of
from amnesis_evaluation.inference.answers import Asked, Forms, SetAnswers, answers_of
from amnesis_evaluation.inference.generation import note_of

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
    """Evaluate ``subject`` by the selected metrics, with one pass over each set for all of them.

    A metric that fails is noted; the others are still evaluated.

    Raises:
        DataError: a row lacks a field, or a set has no usable example.
    """
    needs = {name: Asked.by(metrics.values()) for name, metrics in selection.reading.items()}
    notes = list(selection.notes)
    if any(need.generation for need in needs.values()) and (note := note_of(settings.engine)):
        notes.append(note)
    answers = answers_of(subject, sets, needs, settings, progress, forms)
    builder = _EvaluationBuilder(settings, notes)
    for name, metrics in selection.reading.items():
        builder.add_set(name, sets[name], answers[name])
        if settings.keep_answers:
            kept = answer_records(name, answers[name], subject.tokenizer)
            builder.evaluation.answers.extend(kept)
        for metric in metrics.values():
            builder.add_metric(name, metric, answers[name])
    for derived_metric in selection.derived:
        builder.add_derived(derived_metric, retrained)
    return builder.evaluation


def example_values(evaluation: Evaluation) -> dict[tuple[str, str], NDArray[float64]]:
    """Return an evaluation's example values by set and metric, in the order of its records."""
    columns: dict[tuple[str, str], list[float]] = {}
    for record in evaluation.examples:
        columns.setdefault((record["set"], record["metric"]), []).append(float(record["value"]))
    return {key: np.array(values) for key, values in columns.items()}


class _EvaluationBuilder:
    """Collects the values, intervals, example records and notes of one evaluation."""

    def __init__(self, settings: EvaluationSettings, notes: Sequence[str]) -> None:
        self.evaluation = Evaluation(notes=list(notes))
        self._settings = settings
        self._bootstrap = Bootstrap(settings.bootstrap, settings.confidence, settings.seed)
        self._values: dict[tuple[str, str], NDArray[float64]] = {}
        self._groups: dict[tuple[str, int], list[str]] = {}  # by set and number of examples

    def add_set(self, set_name: str, rows: Sequence[Row], answers: SetAnswers) -> None:
        self.evaluation.data[set_name] = digest_of(list(rows)[: self._settings.limit])
        self.evaluation.notes.extend(answers.notes)
        groups = groups_of([answer.example for answer in answers.answers])
        if groups is not None and len(set(groups)) == 1 and self._bootstrap.resamples:
            self.evaluation.notes.append(
                f"set {set_name!r} has no intervals: its rows are all of one group, {groups[0]!r}, "
                f"and nothing tells how far another would differ"
            )

    def add_metric(self, set_name: str, metric: ReadingMetric, answers: SetAnswers) -> None:
        key = f"{set_name}/{metric.key}"
        # Of NaN some metrics would make a number: its most likely token is a wrong one.
        if broken := sum(bool(np.isnan(answer.logps).any()) for answer in answers.answers):
            self.evaluation.notes.append(
                f"metric {key} has no value: the model's log-probabilities are not numbers (NaN) "
                f"on {broken} of {len(answers.answers)} examples"
            )
            return
        readable = [
            (row, answer)
            for row, answer in zip(answers.rows, answers.answers, strict=True)
            if metric.reads != "generation" or answer.generated is not None
        ]
        if not readable:
            self.evaluation.notes.append(
                f"metric {key} has no value: it reads generated answers, and generate_rows is "
                f"{self._settings.generate_rows}"
            )
            return
        if (groups := groups_of([answer.example for _, answer in readable])) is not None:
            self._groups[set_name, len(readable)] = groups
        try:
            if isinstance(metric, ExampleMetric):
                self._add_examples(set_name, metric, readable)
            elif isinstance(metric, SetMetric):
                self._add_set_value(set_name, metric, [answer for _, answer in readable])
            if remark := metric.remark([answer for _, answer in readable]):
                self.evaluation.notes.append(f"metric {key}: {remark}")
        except Exception as error:  # a plugin's metric may raise anything
            self.evaluation.notes.append(f"metric {key} failed: {_reason(error)}")

    def _add_examples(
        self, set_name: str, metric: ExampleMetric, readable: Sequence[tuple[int, Answer]]
    ) -> None:
        values = np.array(self._values_of(metric, [a for _, a in readable]), dtype=np.float64)
        key, finite = f"{set_name}/{metric.key}", np.isfinite(values)
        groups = self._groups.get((set_name, values.size))
        self.evaluation.examples.extend(
            {
                "set": set_name,
                "row": row,
                "group": groups[index] if groups is not None else None,
                "metric": metric.key,
                "value": float(values[index]),
            }
            for index, (row, _) in enumerate(readable)
            if finite[index]
        )
        if not finite.all():
            count = int((~finite).sum())
            raise ValueError(f"{count} of {values.size} examples have no finite value")
        self._values[set_name, metric.key] = values
        self.evaluation.values[key] = float(values.mean())
        if self._bootstrap.resamples and metric.value_kind != "p_value":
            self._add_interval(key, self._bootstrap.of_mean(values, metric.value_kind, groups))

    def _add_interval(self, key: str, interval: tuple[float, float] | None) -> None:
        if interval is not None:
            self.evaluation.intervals[key] = _finite(interval[0]), _finite(interval[1])

    def _values_of(self, metric: ExampleMetric, answers: Sequence[Answer]) -> Sequence[float]:
        if metric.first_process_only:
            return from_first_rank(lambda: metric.values(answers, self._settings.cache))
        return metric.values(answers, self._settings.cache)

    def _add_set_value(self, set_name: str, metric: SetMetric, answers: Sequence[Answer]) -> None:
        key = f"{set_name}/{metric.key}"
        self.evaluation.values[key] = _finite(metric.value(answers))
        if self._bootstrap.resamples and metric.value_kind != "p_value":
            interval = self._bootstrap.of(
                lambda indices: metric.value([answers[i] for i in indices]),
                len(answers),
                self._groups.get((set_name, len(answers))),
            )
            self._add_interval(key, interval)

    def add_derived(self, metric: DerivedMetric, retrained: Evaluation | None) -> None:
        pairs = [(name, part.key) for name, parts in metric.parts.items() for part in parts]
        try:
            values = _pick(self._values, pairs, "this evaluation lacks")
            reference = None
            if metric.needs_retrained and retrained is not None:
                reference = _pick(
                    example_values(retrained),
                    pairs,
                    "the retrained model's results lack; evaluate that model with the same metrics",
                )
                self._compare_rows(metric, retrained, values, reference)
            self.evaluation.values[metric.key] = _finite(metric.value(values, reference))
        except Exception as error:  # a plugin's metric may raise anything
            self.evaluation.notes.append(f"metric {metric.key} failed: {_reason(error)}")
            return
        if not self._bootstrap.resamples or metric.value_kind == "p_value":
            return
        try:
            interval = self._bootstrap.of_derived(metric.value, values, reference, self._groups)
            self._add_interval(metric.key, interval)
        except Exception as error:  # it may be undefined for some resample
            self.evaluation.notes.append(f"metric {metric.key} has no interval: {_reason(error)}")

    def _compare_rows(
        self,
        metric: DerivedMetric,
        retrained: Evaluation,
        values: ExampleValues,
        reference: ExampleValues,
    ) -> None:
        """Note the sets that the retrained model was evaluated on with other rows."""
        for name, parts in metric.parts.items():
            here, there = self.evaluation.data[name], retrained.data.get(name, "")
            counts = [(values[name, p.key].size, reference[name, p.key].size) for p in parts]
            difference = next((f" ({a} here, {b} there)" for a, b in counts if a != b), "")
            if difference or (there and there != here):
                self.evaluation.notes.append(
                    f"metric {metric.key}: the retrained model was evaluated on other rows of the "
                    f"set {name!r}{difference}; evaluate it on the same data"
                )


def digest_of(rows: Sequence[Row]) -> str:
    """Return a digest of rows, by which evaluations of the same data are recognised."""
    text = json.dumps([dict(row) for row in rows], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _finite(value: float) -> float:
    if not np.isfinite(value):
        raise ValueError(f"its value is {value}")
    return value


def _pick(values: ExampleValues, pairs: Sequence[tuple[str, str]], complaint: str) -> ExampleValues:
    gaps = [f"{name}/{key}" for name, key in pairs if (name, key) not in values]
    if gaps:
        raise DataError(f"it is made of the example values of {', '.join(gaps)}, which {complaint}")
    return {pair: values[pair] for pair in pairs}


def _reason(error: Exception) -> str:
    """Return an error's message in one line, with the type where the message alone says little."""
    message = one_line(error)
    return message if isinstance(error, AmnesisError) else f"{type(error).__name__}: {message}"
