"""Stopping a run by what its probes see: ``stop_when: {retain_over_unlearn: {above: .5}}``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, Self

from pydantic import Field, model_validator
from transformers.trainer_callback import TrainerCallback

from amnesis.config.settings import Settings
from amnesis.config.validation import validated
from amnesis.errors import RecipeError, did_you_mean

SHORT = {"retain_over_unlearn": "g_effect/retain_over_unlearn"}


class Limit(Settings):
    """A bound on a logged value, and for how many steps in a row it must be passed."""

    above: float | None = Field(None, description="stop where the value is greater")
    below: float | None = Field(None, description="stop where the value is less")
    for_steps: int = Field(1, ge=1, description="steps in a row on which the value was given")

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("give above, below, or both")
        return self

    def passed(self, value: float) -> bool:
        """Say whether a value is outside the bounds."""
        over = self.above is not None and value > self.above
        return over or (self.below is not None and value < self.below)


StopWhen = Mapping[str, Limit]


def limits_of(choice: Mapping[str, Any] | None) -> dict[str, Limit]:
    """Read ``{value: {above | below: x, for_steps: n}}``; ``retain_over_unlearn`` needs no path.

    Raises:
        RecipeError: a limit is not one.
    """
    limits: dict[str, Limit] = {}
    for name, limit in (choice or {}).items():
        limits[SHORT.get(name, name)] = validated(Limit, limit, f"stop_when.{name}")
    return limits


class Stopping(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Ends a run once a limit was passed for long enough.

    ``counts`` is how long each limit has been passed; a checkpoint keeps it.
    """

    def __init__(
        self,
        limits: StopWhen,
        values: Callable[[], Mapping[str, float]],
        note: Callable[[str], None],
        judged_every: int | None = None,
    ) -> None:
        """Take the limits, what gives the values of the step, and what takes a note of the run.

        ``judged_every``: every so many steps a judgement brings values that others do not have.
        """
        self._limits, self._values, self._note = limits, values, note
        self._judged_every = judged_every
        self.counts = dict.fromkeys(limits, 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the values of the step that just ended.

        Raises:
            RecipeError: no probe of the run gives the value that a limit is on.
        """
        values = self._values()
        if state.global_step == 1:  # every probe observes the first step
            self._refuse_missing([n for n in self._limits if n.startswith("g_effect")], values)
        if state.global_step == (self._judged_every or 1):
            judged = [n for n in self._limits if not n.startswith("g_effect")]
            self._refuse_missing(judged, values)
        for name, limit in self._limits.items():
            if name not in values:
                continue  # its probe does not observe this step
            self.counts[name] = self.counts[name] + 1 if limit.passed(values[name]) else 0
            if self.counts[name] >= limit.for_steps:
                control.should_training_stop = control.should_log = True
                self._note(
                    f"stopped after step {state.global_step}: {name} was {values[name]:.4g}, "
                    f"outside its limit for {limit.for_steps} step(s) in a row (of those with it)"
                )

    def _refuse_missing(self, names: Sequence[str], values: Mapping[str, float]) -> None:
        for name in names:
            if name in values or name.replace("retain_over_unlearn", "retain") in values:
                continue  # there is no ratio on a step that does not forget
            raise RecipeError(
                f"stop_when: neither a probe nor a judgement of this run gives {name!r}; "
                f"{did_you_mean(name, values)}; for the G-effect add the probe 'g_effect' (its "
                f"ratio needs a regularizer) or 'g_effect_sets', for a metric evaluate.every"
            )


class StopWhenAsked(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Turns the first Ctrl-C during training into an orderly stop; the second one is immediate."""

    def __init__(self) -> None:
        """Do nothing until training begins."""
        self.asked = False
        self._before: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Listen for Ctrl-C, where signals can be listened for."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop after this step, with a checkpoint."""
        if self.asked:
            control.should_training_stop = True
            control.should_save = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Give Ctrl-C back."""
        self.restore()

    def restore(self) -> None:
        """Put the handler back that was there before training."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.restore()
