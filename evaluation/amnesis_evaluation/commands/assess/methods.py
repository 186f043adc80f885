"""Which methods suit and at which learning rate: range tests and trials, on what is thrown away."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from amnesis.errors import RecipeError
from amnesis.training.settings import TrainingSettings
from amnesis_evaluation.commands.assess.record import Methods, Tried
from amnesis_evaluation.commands.suggest.trials import (
    Candidate,
    Ranking,
    Trial,
    disposable,
    rank,
    try_out,
)
from amnesis_evaluation.reports.tables import Number

if TYPE_CHECKING:
    from amnesis.contracts import ProgressCallback, Row, Subject
    from amnesis.discovery.registry import Registry
    from amnesis.training.pacing.choice import RangeTest

MOST = 600  # steps of a starter recipe, which has a goal to end at
SAME = 0.01  # of the way that a trial goes: what stays closer than this did the same


@dataclass(frozen=True, kw_only=True)
class Trying:
    """How candidates are tried out.

    ``steps`` is each one's number of optimizer steps, ``lora`` the rank of the adapter that trains,
    None for all weights; effects are measured on the first ``examples`` rows of each set.
    """

    steps: int
    batch_size: int
    examples: int
    lora: int | None
    seed: int


def methods_of(
    subject: Subject,
    sets: Mapping[str, Sequence[Row]],
    candidates: Sequence[Candidate],
    trying: Trying,
    goal: Mapping[str, Any],
    registry: Registry,
    progress: ProgressCallback,
) -> Methods:
    """Return the candidates ranked by damage at equal forgetting, and the best one's learning rate.

    A range test of the first candidate finds the rate of the trials, another one of the best
    candidate the rate of its recipe, which is to end at ``goal``. The subject is left unchanged.

    Raises:
        NonFiniteError: every candidate's run became non-finite.
        RecipeError: nothing moves at any rate, or none of the candidates forgets.
    """
    find = partial(_range_test, subject, sets, trying, registry, progress)
    first, _ = find(candidates[0], trying.steps, None)
    sizes = {"steps": trying.steps, "batch_size": trying.batch_size}
    outcome = try_out(
        subject,
        sets,
        candidates,
        training={**sizes, "learning_rate": first.rate, "schedule": "constant"},
        examples=trying.examples,
        lora_rank=trying.lora,
        seed=trying.seed,
        registry=registry,
        told=progress,
    )
    ranking = rank(outcome.trials)
    tried = _tried(ranking)
    if not any(one.ratio is not None for one in tried):
        raise RecipeError(
            f"no candidate forgot anything in {trying.steps} steps at a learning rate of "
            f"{first.rate:g}; name others with --candidates, or give more --steps"
        )
    best = next(one for one in candidates if one.name == tried[0].names[0])
    steps = length_of(len(sets["forget"]), trying.batch_size)
    test, seconds = find(best, steps, goal)
    return Methods(
        best=best.name,
        learning_rate=test.rate,
        steps=steps,
        seconds_per_step=seconds,
        lora=trying.lora,
        at=ranking.probability,
        start=outcome.trials[0].start,
        ranking=tried,
        not_reached=tuple(trial.name for trial in ranking.short),
        failed=dict(outcome.failed),
        trial_learning_rate=first.rate,
        range_test=tuple(point.model_dump(exclude_none=True) for point in test.curve),
        ended=test.ended,
        sentence=_sentence(tried, test, seconds),
    )


def _tried(ranking: Ranking) -> tuple[Tried, ...]:
    """Return the ranking with those that went the same way together."""
    moments = {trial.name: moment for trial, moment in ranking.ranked}
    return tuple(
        Tried(
            names=tuple(trial.name for trial in group),
            ratio=moments[group[0].name].ratio,
            retain_probability=moments[group[0].name].retain_probability,
            steps=moments[group[0].name].steps,
        )
        for group in coinciding([trial for trial, _ in ranking.ranked])
    )


def length_of(rows: int, batch_size: int) -> int:
    """Return the steps that a starter recipe makes at most, over so many forget rows."""
    steps, _ = TrainingSettings(batch_size=batch_size).length(rows, has_goal=True)
    return min(MOST, steps)


def _range_test(
    subject: Subject,
    sets: Mapping[str, Sequence[Row]],
    trying: Trying,
    registry: Registry,
    progress: ProgressCallback,
    candidate: Candidate,
    steps: int,
    until: Mapping[str, Any] | None,
) -> tuple[RangeTest, float]:
    """Return the range test of a candidate's run of so many steps, and how long a step took."""
    from amnesis.training.unlearner import Unlearner

    ends: list[float] = []

    def told(_: str, done: int, total: int) -> None:
        ends.append(time.monotonic())
        progress(f"learning rate of {candidate.name}", done, total)

    with disposable(subject.model, trying.lora, trying.seed) as model:
        test: RangeTest = Unlearner(
            model,
            subject.tokenizer,
            candidate.objective,
            candidate.regularizer,
            candidate.combiner,
            training={
                "steps": steps,
                "batch_size": trying.batch_size,
                "schedule": "constant",
            },
            until=until,
            template=subject.template,
            seed=trying.seed,
            device=str(subject.model.device),
            registry=registry,
        ).find_learning_rate(sets["forget"], sets["retain"], progress=told)
    return test, median([b - a for a, b in pairwise(ends)] or [0.0])


def coinciding(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Return the trials in groups that went the same way, step by step, in the given order.

    Where a model is its own reference, one objective may be another one times a number, and
    AdamW's steps know no such number.
    """
    groups: list[list[Trial]] = []
    for trial in trials:
        for group in groups:
            if _same(group[0], trial):
                group.append(trial)
                break
        else:
            groups.append([trial])
    return groups


def _same(one: Trial, other: Trial) -> bool:
    a, b = (np.array([(m.forget_risk, m.retain_risk) for m in t.path]) for t in (one, other))
    if a.shape != b.shape:
        return False
    way = np.abs(a - a[0]).max(axis=0)
    return bool((np.abs(a - b).max(axis=0) <= SAME * way).all())


def _sentence(tried: Sequence[Tried], test: RangeTest, seconds: float) -> str:
    best = tried[0]
    ratio = "" if best.ratio is None else f", {Number(best.ratio)} of damage per unit of forgetting"
    same = (
        f" ({', '.join(best.names[1:])} did the same, and stands here once)"
        if len(best.names) > 1
        else ""
    )
    return (
        f"{best.names[0]} is the gentlest of those tried{ratio}{same}. A learning rate of "
        f"{test.rate:.2g} brings it to its goal in about {test.steps:.0f} steps, each of about "
        f"{seconds:.2g} s here. The trials were short, and the retain rows are those that a "
        f"regularizer trains on: it is where to start, not the end of the search."
    )
