"""The range test by which a learning rate was found: as a picture, and in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amnesis.training.pacing.choice import rise_needed
from amnesis_evaluation.pages.charts import LOW, WIDE, Axis, Line

if TYPE_CHECKING:
    from amnesis.training.pacing.choice import RangeTest

ENDS = {
    "forgotten": "ended where the forget set was forgotten",
    "damaged": (
        "ended where the retain set was damaged as much as the forget set had to be: here "
        "forgetting has its price, and the verdict says which"
    ),
    "diverged": "ended where the numbers were no longer finite",
    "saturated": (
        "went through all rates without forgetting the set, as an objective does that is bounded "
        "or weak: the rate is for half of what it did"
    ),
}
STYLES = {"forget": ("risk on the forget set", "wanted"), "retain": ("on the retain set", "damage")}


@dataclass(frozen=True, kw_only=True)
class Rise:
    """Both risks as the learning rate rises, which is on a logarithmic scale.

    Attributes:
        x: the scale of log₁₀ of the rate.
        y: that of the risks, in nats per token.
        lines: one for each set.
        points: of each step its place, and what is said of it.
        found: where the rate is that was found; None if outside of the picture.
        goal: where the forget risk is high enough; None if outside.
        start: where the risks were before the first step, one for each line.
    """

    x: Axis
    y: Axis
    lines: Sequence[Line]
    points: Sequence[tuple[float, float, float, float, str]]
    found: float | None
    goal: float | None
    start: Sequence[tuple[float, str]]

    def decades(self) -> Iterator[tuple[float, str]]:
        """Yield the powers of ten on the scale, each with its place and its exponent."""
        for power in range(math.ceil(self.x.low), math.floor(self.x.high) + 1):
            yield self.x.at(power), f"{power}".replace("-", "−")


def rise_of(curve: Sequence[Mapping[str, float]], rate: float) -> Rise | None:
    """Return the picture of a curve: ``rate``, ``forget`` and perhaps ``retain`` of each point.

    The first point is the model before any step, at a rate of 0. None of fewer than two others.
    """
    first, *steps = curve
    if len(steps) < 2:
        return None
    names = [name for name in STYLES if first.get(name) is not None]
    risks = [point[name] for point in curve for name in names if point.get(name) is not None]
    x = Axis(math.log10(steps[0]["rate"]), math.log10(steps[-1]["rate"]), 64, WIDE - 16)
    # Room for the goal, where the test came near it; not for what one exploding step did.
    goal = first["forget"] + rise_needed(first["forget"])
    top = min(max(risks), max(goal, first["forget"], first.get("retain") or 0.0) * 1.5)
    y = Axis(0.0, max(top, goal) * 1.05, LOW - 40, 16)
    places = {
        name: [
            (x.at(math.log10(point["rate"])), y.at(min(point[name], y.high)), point)
            for point in steps
            if point.get(name) is not None
        ]
        for name in names
    }
    return Rise(
        x=x,
        y=y,
        lines=[
            Line(name=STYLES[name][0], style=STYLES[name][1], points=[(a, b) for a, b, _ in place])
            for name, place in places.items()
        ],
        points=[
            (a, b, point["rate"], point[name], STYLES[name][0])
            for name, place in places.items()
            for a, b, point in place
        ],
        found=x.at(math.log10(rate)) if x.low <= math.log10(rate) <= x.high else None,
        goal=y.at(goal),
        start=[(y.at(min(first[name], y.high)), STYLES[name][1]) for name in names],
    )


@dataclass(frozen=True, kw_only=True)
class Pacing:
    """How a run's learning rate was found."""

    sentences: Sequence[Sequence[Any]]
    picture: Rise | None
    curve: Sequence[Mapping[str, float]]


def pacing_of(test: RangeTest | None) -> Pacing | None:
    """Return what a range test says; None where the rate was named."""
    if test is None:
        return None
    curve = [point.model_dump(exclude_none=True) for point in test.curve]
    return Pacing(sentences=list(_sentences(test)), picture=rise_of(curve, test.rate), curve=curve)


def _sentences(test: RangeTest) -> Iterator[list[Any]]:
    """Yield what happened, as texts and numbers that the results hold."""
    first, last = test.curve[0], test.curve[-1]
    yield [
        "Before the run a few steps were made at rising rates, and undone: weights and random "
        "states were put back. They ",
        f"{ENDS[test.ended]}.",
    ]
    told: list[Any] = [
        "The risk on the forget set rose from ", first.forget, " to ", last.forget,
    ]  # fmt: skip
    if first.retain is not None and last.retain is not None:
        told += [", that on the retain set went from ", first.retain, " to ", last.retain]
    yield [*told, ", in nats per token."]
    yield [
        "The rates on the way there add up to ", test.path, ". Divided by the ", test.steps,
        " full steps in which the run is to get there, that is the rate of ", test.rate,
        ". A run makes more and smaller steps, and hears its regularizer more often: what the test "
        "damaged, it need not.",
    ]  # fmt: skip
