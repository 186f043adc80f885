"""How fast a run forgets: said early on where it will not come to its end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers.trainer_callback import TrainerCallback

from amnesis.training.pacing.choice import FORGOTTEN, VISIBLE, RangeTest, rise_needed

if TYPE_CHECKING:
    from amnesis.training.report import StepLog
    from amnesis.training.settings import TrainingSettings

# The forget risk rises with the distance that the weights went to about this power: a model that
# is certain has hardly any gradient at first (measured between 1.4 and 2).
POWER = 1.5
# From this factor on a rate is said to be too low: below it the estimate is too rough.
CLEAR = 3.0
LEAST_SHARE = 0.02
MOST = 100.0


def too_low_by(rise: float, needed: float, share: float) -> float:
    """Return by which factor a learning rate is too low, at least 1 and at most 100.

    ``rise`` is that of the forget risk over a ``share`` of the run's way, ``needed`` what the whole
    run should come to.
    """
    expected = rise * share**-POWER
    if expected <= 0:
        return MOST
    return float(min(MOST, max(1.0, (needed / expected) ** (1 / POWER))))


@dataclass(frozen=True, kw_only=True)
class Movement:
    """How far the forget risk has gone, in nats per token, over a share of a run's way."""

    start: float
    now: float
    share: float

    @property
    def held_back(self) -> bool:
        """Whether the model knows the forget set better than before."""
        return self.now < self.start - VISIBLE / 10

    @property
    def factor(self) -> float:
        """By how much the learning rate is too low."""
        return too_low_by(self.now - self.start, rise_needed(self.start), self.share)


class Pace(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Compares the forget risk after a tenth of the steps with what they should come to.

    A run whose risk cannot be measured is not watched.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        steps: int,
        risk: Callable[[], float | None],
        log: StepLog,
        *,
        tested: RangeTest | None = None,
        combined: bool = False,
    ) -> None:
        """Measure the model as it is now by ``risk``, in nats per token; None: unknown.

        ``settings`` are those of a run of ``steps``, ``tested`` is how its rate was found, and
        ``combined`` says whether a combiner other than the sum joins the gradients.
        """
        self._settings, self._steps, self._risk, self._log = settings, steps, risk, log
        self._tested, self._combined = tested, combined
        self._start = risk()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After a tenth of the steps, say so where they are far too slow, or go the wrong way."""
        if state.global_step != max(2, math.ceil(state.max_steps / 10)):
            return
        moved = self.movement(state.global_step)
        if moved is None or not (moved.held_back or moved.factor >= CLEAR):
            return
        where = f"after {state.global_step} of {state.max_steps} steps the forget set"
        if moved.held_back:
            text = f"{where} is known better than before: {self._held_back()}"
        else:
            text = (
                f"{where} has hardly moved: the learning rate is about "
                f"{rounded(moved.factor):g} times too low; set training.learning_rate="
                f"{rounded(self._rate * moved.factor):g}{'' if self._tested else ', or auto'}"
            )
        self._log.note(text)
        if state.is_world_process_zero:
            logging.getLogger(__name__).warning(text)

    def movement(self, step: int) -> Movement | None:
        """Return how far the model has moved after ``step`` steps.

        None where that tells nothing: nothing to forget was known, or the way has hardly begun.
        """
        whole = self._settings.full_steps(self._steps, self._steps)
        share = self._settings.full_steps(step, self._steps) / whole
        if self._start is None or self._start >= FORGOTTEN or share < LEAST_SHARE:
            return None
        now = self._risk()
        return None if now is None else Movement(start=self._start, now=now, share=share)

    def advice(self) -> str:
        """Return what to set, for a run that made all its steps and missed its goal."""
        moved = self.movement(self._steps)
        if moved is not None and moved.held_back:
            return self._held_back()
        factor = min(MOST, max(1.5, 2.0 if moved is None else moved.factor))
        longer = f"training.steps={math.ceil(self._steps * factor)}"
        # At its end a run whose rate was found has gone much further than the test had to.
        if self._tested is not None and self._combined:
            return f"{self._held_back()}, or {longer}"
        return f"set {longer}, or training.learning_rate={rounded(self._rate * factor):g}"

    @property
    def _rate(self) -> float:
        rate = self._settings.learning_rate
        return 0.0 if rate == "auto" else rate

    def _held_back(self) -> str:
        if self._combined:
            return (
                "the combiner holds the objective back; set combiner=null, which adds the two "
                "gradients"
            )
        return (
            "what keeps the rest outweighs the objective; set a lower weight of the regularizer, "
            "or another objective (amnesis suggest ranks them)"
        )


def rounded(value: float) -> float:
    """Return a positive number as 1, 2, 3, 5 or 7 times a power of ten: more would be feigned."""
    power = 10.0 ** math.floor(math.log10(value))
    nearest = min((1, 2, 3, 5, 7, 10), key=lambda digit: abs(math.log(digit * power / value)))
    return float(f"{nearest * power:.0e}")
