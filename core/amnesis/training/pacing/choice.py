"""The rule that chooses a learning rate from the curve of a range test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from amnesis.config.settings import Settings
from amnesis.errors import RecipeError

# A forget risk at which a token of the forget set has a probability of about a tenth, in nats.
FORGOTTEN = math.log(10)
# What the forget risk has to rise by at least, also where little was known, in nats.
LEAST_RISE = 1.0
# The most steps of a range test.
RANGE_STEPS = 25
# A rise that is told from rounding and from the choice of a batch, in nats.
VISIBLE = 0.1

Ending = Literal["forgotten", "damaged", "diverged", "saturated"]


class RangePoint(Settings):
    """The two risks after a step of a range test, in nats per token."""

    rate: float = Field(ge=0, description="learning rate of the step; 0: before the first")
    forget: float = Field(description="risk on examples to forget, after the step")
    retain: float | None = Field(None, description="the same on examples to keep")


class RangeTest(Settings):
    """The learning rate that a range test found, and the curve that it rests on."""

    rate: float = Field(gt=0, description="the learning rate that was found")
    path: float = Field(description="the rates of the test's steps added up, to its end")
    steps: float = Field(description="steps at the full rate that the path is divided by")
    ended: Ending = Field(
        description="what ended it: the examples were forgotten, those to keep were damaged, the "
        "numbers were no longer finite, or the highest rate was reached before any of these"
    )
    curve: tuple[RangePoint, ...] = Field(description="the risks after each step")

    @property
    def note(self) -> str:
        """What the test found, in one line."""
        return (
            f"training.learning_rate: auto found {self.rate:.2g} in {len(self.curve) - 1} steps "
            f"of a range test, for {self.steps:.3g} steps at that rate ({self.ended})"
        )


def rise_needed(start: float) -> float:
    """Return by how much the forget risk has to rise from ``start``, in nats."""
    return max(FORGOTTEN - start, LEAST_RISE)


def ending(curve: Sequence[RangePoint]) -> Ending | None:
    """Return what ends a range test after its last point so far, or None: it goes on."""
    first, last = curve[0], curve[-1]
    needed = rise_needed(first.forget)
    if not _is_finite(last):
        return "diverged"
    if last.forget - first.forget >= needed:
        return "forgotten"
    if _retain_rise(first, last) >= needed:
        return "damaged"
    return None


def choose_rate(curve: Sequence[RangePoint], steps: float) -> RangeTest:
    """Return the rate at which a run of ``steps`` steps goes as far as the range test had to.

    The rule. The curve's first point is the model before any step, with forget risk F₀. The risk
    has to rise by Δ = max(log 10 − F₀, 1): to where a token to forget has a probability of a
    tenth, on average, and by 1 nat at least. Under an adaptive optimizer, and nearly so under
    others, the distance that weights travel is the sum of the learning rates. So the test ends
    at the first step k after which the forget risk has risen by Δ ("forgotten"), or the retain
    risk has ("damaged"), or a number is not finite ("diverged"). The path there is

        P = η₁ + … + η_{k−1} + φ·η_k,

    with φ in (0, 1] where Δ was crossed, interpolated linearly between the two last points, and
    φ = 0 where the last step diverged. Where the highest rate comes first ("saturated": the
    objective is bounded, or weak), Δ is replaced by half of the largest rise, if that rise is
    0.1 nats or more. The rate is P / ``steps``, to two digits.

    It does not depend on what the test did after k. A run at this rate has more and smaller steps
    than the test, so that the regularizer is heard more often: what the test damages, it need not.

    Raises:
        RecipeError: nothing moved at any rate, or the first steps diverged already.
    """
    first = curve[0]
    for index in range(1, len(curve)):
        if (reason := ending(curve[: index + 1])) is not None:
            path = _path(curve[: index + 1], rise_needed(first.forget), reason)
            return _tested(path, steps, reason, curve[: index + 1])
    rises = [point.forget - first.forget for point in curve]
    if max(rises) < VISIBLE:
        raise RecipeError(
            f"training.learning_rate: auto found none: up to {curve[-1].rate:.2g} the risk on the "
            f"forget set rose by no more than {max(max(rises), 0.0):.2g} nats per token; try "
            f"another objective (amnesis suggest ranks them), or name a rate"
        )
    half = max(rises) / 2
    crossed = next(index for index, rise in enumerate(rises) if rise >= half)
    return _tested(_path(curve[: crossed + 1], half, "forgotten"), steps, "saturated", curve)


def _tested(path: float, steps: float, ended: Ending, curve: Sequence[RangePoint]) -> RangeTest:
    if path <= 0:
        raise RecipeError(
            "training.learning_rate: auto found none: the first step of its range test was no "
            "longer finite; look at the terms' hyper-parameters, or name a rate"
        )
    finite = tuple(point for point in curve if _is_finite(point))
    rate = float(f"{path / steps:.2g}")
    return RangeTest(rate=rate, path=path, steps=steps, ended=ended, curve=finite)


def _path(curve: Sequence[RangePoint], needed: float, reason: Ending) -> float:
    """Return the sum of rates up to where a rise crossed ``needed`` on the last step."""
    *_, before, last = curve
    path = sum(point.rate for point in curve[:-1])
    if reason == "diverged":
        return path
    first = curve[0]
    rises = (
        (before.forget - first.forget, last.forget - first.forget)
        if reason == "forgotten"
        else (_retain_rise(first, before), _retain_rise(first, last))
    )
    share = (needed - rises[0]) / (rises[1] - rises[0]) if rises[1] > rises[0] else 1.0
    return path + min(max(share, 0.0), 1.0) * last.rate


def _retain_rise(first: RangePoint, point: RangePoint) -> float:
    if first.retain is None or point.retain is None:
        return -math.inf
    return point.retain - first.retain


def _is_finite(point: RangePoint) -> bool:
    return math.isfinite(point.forget) and math.isfinite(point.retain or 0.0)
