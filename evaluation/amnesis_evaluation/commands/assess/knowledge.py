"""Does the model know it at all: by the rules of the verdict, before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from amnesis.contracts import Evaluation, EvaluationSettings, Evidence, Row
from amnesis.contracts.benchmark import check_values
from amnesis.discovery.resolve import build_metrics
from amnesis.runs.results import Results
from amnesis_evaluation.commands.assess.record import Knowledge, Level, Memorised, Remembered
from amnesis_evaluation.evaluator.bootstrap import Bootstrap
from amnesis_evaluation.evaluator.evaluate import evaluate
from amnesis_evaluation.evaluator.selection import select
from amnesis_evaluation.evaluator.units import groups_of
from amnesis_evaluation.reports.tables import Number
from amnesis_evaluation.reports.thresholds import GAP, STILL_THERE, UNSEEN
from amnesis_evaluation.reports.verdict import shown, verdict_of

if TYPE_CHECKING:
    from amnesis.contracts import ProgressCallback, Subject
    from amnesis.discovery.registry import Registry

MEMORY = ("extraction_strength", "probability", "exact_memorization")
MEMBERSHIP = ("mia_loss", "mia_min_k", "mia_zlib")
MOST = 12  # rows that are named
# Levels of the verdict that say of a model before unlearning that it has not seen the rows.
UNKNOWN = {"forgotten", "too_much"}
_HEADS: Mapping[Level, str] = {
    "known": "The model knows it",
    "partly": "The model knows a part of it",
    "unknown": "The model does not know it, so there is nothing to forget",
}


def evaluation_of(
    subject: Subject,
    sets: Mapping[str, Sequence[Row]],
    batch_size: int,
    registry: Registry,
    progress: ProgressCallback,
) -> Evaluation:
    """Return the evaluation of the sets by what tells of memory and, beside a holdout, membership.

    Raises:
        DataError: a row lacks a field, or no metric has a value.
    """
    names = [*MEMORY, *(MEMBERSHIP if "holdout" in sets else ())]
    settings = EvaluationSettings(batch_size=batch_size, keep_answers=False)
    selection = select(sets, build_metrics(names, registry), retrained=False)
    evaluation = evaluate(subject, sets, selection, settings, progress)
    check_values(evaluation)
    return evaluation


def knowledge_of(evaluation: Evaluation, forget: Sequence[Row]) -> Knowledge:
    """Return what an evaluation says of whether the model knows the rows to forget.

    Each number is held against the threshold, or the holdout rows, of the verdict's rules. What is
    ``not_at_all`` forgotten there is known. A high value whose interval, of few rows, is so wide
    that it reaches those of rows never seen says nothing. Membership alone makes ``partly``:
    trained on, if not by heart.
    """
    verdict = verdict_of(Results.of({"after": evaluation}, {}))
    because = () if verdict is None else verdict.because
    told = tuple(
        _without_doubt(one, evaluation.values) for one in because if one.about == "forgetting"
    )
    memorised = _memorised(evaluation, forget)
    level = _level(told)
    return Knowledge(
        level=level,
        sentence=_sentence(level, told, memorised),
        values=evaluation.values,
        intervals=evaluation.intervals,
        memorised=memorised,
        because=told,
        best=_best(evaluation),
    )


def _without_doubt(one: Evidence, values: Mapping[str, float]) -> Evidence:
    """Return a number without its level where it is far above the end that its interval reaches."""
    if one.level != "forgotten" or one.value < STILL_THERE or is_membership(one):
        return one
    metric = one.metric.rpartition("/")[2]
    end = values.get(f"holdout/{metric}", UNSEEN[metric])
    return one.model_copy(update={"level": None}) if one.value > end + GAP else one


def is_membership(one: Evidence) -> bool:
    """Return whether a number is a membership inference's, and not a measure of memory."""
    return one.metric.startswith("mia_")


def _level(told: Sequence[Evidence]) -> Level:
    memory = {one.level for one in told if one.level and not is_membership(one)}
    members = {one.level for one in told if is_membership(one)} - UNKNOWN - {None}
    if memory == {"not_at_all"}:
        return "known"
    return "unknown" if memory and memory <= UNKNOWN and not members else "partly"


def _by_row(evaluation: Evaluation) -> dict[int, dict[str, float]]:
    """Return the values of each forget row; of a text in chunks, of the one known best."""
    rows: dict[int, dict[str, float]] = {}
    for record in evaluation.examples:
        if record["set"] == "forget" and record["metric"] in MEMORY:
            values = rows.setdefault(int(record["row"]), {})
            metric, value = str(record["metric"]), float(record["value"])
            values[metric] = max(value, values.get(metric, 0.0))
    return rows


def _memorised(evaluation: Evaluation, forget: Sequence[Row]) -> Memorised:
    rows = {
        row: values["extraction_strength"]
        for row, values in _by_row(evaluation).items()
        if "extraction_strength" in values
    }
    back = np.array([float(value >= STILL_THERE) for value in rows.values()])
    groups = groups_of([forget[row] for row in rows])
    return Memorised(
        rows=int(back.sum()),
        of=back.size,
        share=float(back.mean()),
        interval=Bootstrap().of_mean(back, "share", groups),
    )


def _best(evaluation: Evaluation) -> tuple[Remembered, ...]:
    rows = _by_row(evaluation)
    order = sorted(rows, key=lambda row: [-rows[row].get(name, 0.0) for name in MEMORY])
    return tuple(Remembered(row=row, values=rows[row]) for row in order[:MOST])


def _sentence(level: Level, told: Sequence[Evidence], memorised: Memorised) -> str:
    back = f"{memorised.rows} of {memorised.of} rows come back from at most half of their answer"
    share = f"a share of {shown(memorised.share, memorised.interval)}"
    reasons = [f"{back}, {share}", *(one.text for one in told[:1])]
    text = f"{_HEADS[level]}: {'; '.join(reasons)}."
    memory = {one.level for one in told if one.level and not is_membership(one)}
    if level == "partly" and memory and memory <= UNKNOWN:
        auc = max(one.value for one in told if is_membership(one))
        text += (
            f" It does not say the rows, but tells them from rows never seen (AUC {Number(auc)}): "
            f"it was trained on them."
        )
    return text


def shown_values(knowledge: Knowledge) -> dict[str, float]:
    """Return the values that are told: those of which membership is made are of no use alone."""
    return {
        name: value
        for name, value in knowledge.values.items()
        if name.rpartition("/")[2] in (*MEMORY, *MEMBERSHIP)
    }
