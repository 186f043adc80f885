"""The rows that a page shows: those that changed as they should the least, and some that did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amnesis_evaluation.reports.thresholds import is_forgotten_set

WORST, BEST = 8, 2  # rows of each set
MOST_TEXT, MOST_TOKENS = 900, 160
BANDS = (0.1, 0.3, 0.6, 0.9)  # of a token's probability


@dataclass(frozen=True)
class Token:
    """A token's text, and the band of its probability after the run, 0 (hardly) to 4 (sure)."""

    text: str
    band: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A row and what the model says of it.

    ``values`` is its probability by phase, ``answers`` what was generated, ``tokens`` the
    reference's, ``omitted`` how many more there are.
    """

    row: int
    prompt: str
    reference: str
    tokens: Sequence[Token]
    omitted: int
    values: Mapping[str, float]
    answers: Mapping[str, str]
    worst: bool


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """The samples of a set, the worst first, of how many rows, and whether it must go."""

    name: str
    must_go: bool
    rows: int
    samples: Sequence[Sample]


def sample_sets(
    records: Sequence[Mapping[str, Any]], examples: Sequence[Mapping[str, Any]]
) -> list[SampleSet]:
    """Return the samples of each set of ``answers.parquet``.

    ``examples`` are the records of ``examples.parquet``, whose probabilities are shown where they
    are known; the order is that of the reference's probability in any case.
    """
    known = {
        (one["set"], one["row"], one["phase"]): one["value"]
        for one in examples
        if one["metric"] == "probability"
    }
    by_set: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        if record.get("logps_after"):
            by_set.setdefault(record["set"], []).append(record)
    sets = []
    for name, rows in by_set.items():
        must_go = is_forgotten_set(name)
        order = sorted(rows, key=lambda record: _badness(record, must_go), reverse=True)
        chosen = [*order[:WORST], *order[max(WORST, len(order) - BEST) :]]
        sets.append(
            SampleSet(
                name=name,
                must_go=must_go,
                rows=len(rows),
                samples=[
                    _sample(record, name, known, worst=index < WORST)
                    for index, record in enumerate(chosen)
                ],
            )
        )
    return sorted(sets, key=lambda one: (not one.must_go, one.name == "holdout"))


def _badness(record: Mapping[str, Any], must_go: bool) -> float:
    after = _mean(record["logps_after"])
    if must_go:
        return after
    return _mean(record.get("logps_before") or [0.0]) - after


def _mean(logps: Sequence[float]) -> float:
    return sum(logps) / len(logps)


def _sample(
    record: Mapping[str, Any],
    name: str,
    known: Mapping[tuple[str, int, str], float],
    *,
    worst: bool,
) -> Sample:
    phases = [phase for phase in ("before", "after", "retrained") if f"logps_{phase}" in record]
    tokens = [
        Token(text, sum(math.exp(logp) >= band for band in BANDS))
        for text, logp in zip(record["tokens"], record["logps_after"], strict=True)
    ]
    return Sample(
        row=record["row"],
        prompt=_shortened(record["prompt"]),
        reference=_shortened(record["reference"]),
        tokens=tokens[:MOST_TOKENS],
        omitted=max(0, len(tokens) - MOST_TOKENS),
        values={
            phase: known[name, record["row"], phase]
            for phase in phases
            if (name, record["row"], phase) in known
        },
        answers={
            phase: _shortened(record[f"generated_{phase}"])
            for phase in phases
            if record.get(f"generated_{phase}") is not None
        },
        worst=worst,
    )


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"
