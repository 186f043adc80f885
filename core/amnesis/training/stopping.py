"""Ending a run: at its goal, at a limit on a logged value, or because the user asks for it."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from transformers.trainer_callback import TrainerCallback

from amnesis.config.validation import validated
from amnesis.distributed.processes import added_over_ranks
from amnesis.errors import RecipeError, did_you_mean
from amnesis.training.pacing.goal import Goal, GoalReport, Limit

if TYPE_CHECKING:
    from amnesis.contracts.probe import Probe
    from amnesis.training.report import StepLog

Bound = TypeVar("Bound", bound=Limit)
_GOAL = "until "  # before a goal's name, as a limit may be on the same value


def limits_of(choice: Mapping[str, Any] | None, probes: Sequence[Probe] = ()) -> dict[str, Limit]:
    """Read ``{value: {above | below: x, for_steps: n}}``, by the values' whole names.

    Raises:
        RecipeError: a limit is not one.
    """
    return _read(Limit, "stop_when", choice, probes)


def goals_of(choice: Mapping[str, Any] | None, probes: Sequence[Probe] = ()) -> dict[str, Goal]:
    """Read the same of what a run is to reach.

    Raises:
        RecipeError: a goal is not one, or there are none where some were to be.
    """
    if choice is not None and not choice:
        raise RecipeError("until: names no goal, such as {forget/probability: {below: 0.1}}")
    return _read(Goal, "until", choice, probes)


def _read(
    record: type[Bound], key: str, choice: Mapping[str, Any] | None, probes: Sequence[Probe]
) -> dict[str, Bound]:
    names = {short: name for probe in probes for short, name in probe.short_names.items()}
    return {
        names.get(name, name): validated(record, limit, f"{key}.{name}")
        for name, limit in (choice or {}).items()
    }


class StopAtLimits(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Ends a run once a limit was passed for long enough, or all goals hold at once.

    ``counts`` is how long each limit and goal has been passed; a checkpoint keeps it.
    """

    def __init__(
        self,
        limits: Mapping[str, Limit],
        log: StepLog,
        probes: Sequence[Probe] = (),
        evaluate_every: int | None = None,
        goals: Mapping[str, Goal] | None = None,
    ) -> None:
        """Take limits and goals, the log of the run, and what brings values that its steps lack.

        Probes do so on the first step, evaluations along the run on every ``evaluate_every``-th.
        """
        self._log = log
        self._limits: dict[str, Limit] = dict(limits)
        self._goals = {f"{_GOAL}{name}": goal for name, goal in (goals or {}).items()}
        prefixes = tuple(prefix for probe in probes for prefix in probe.logs)
        names = dict.fromkeys([*limits, *(goals or {})])
        seen = [name for name in names if name.startswith(prefixes)] if prefixes else []
        evaluated = [name for name in names if name not in seen]
        self._expected = {1: seen}
        self._expected.setdefault(evaluate_every or 1, []).extend(evaluated)
        self.counts = dict.fromkeys([*self._limits, *self._goals], 0)
        self._latest: dict[str, float] = {}

    @property
    def ended(self) -> bool:
        """Whether a limit, or all of the goal, was passed for long enough."""
        return any(map(self._is_met, self._limits)) or self.reached

    @property
    def reached(self) -> bool:
        """Whether all of the goal holds."""
        return bool(self._goals) and all(map(self._is_met, self._goals))

    def report(self, step: int, cap: int) -> GoalReport | None:
        """Return how it went with the goal of a run that ended after ``step``; None without one."""
        if not self._goals:
            return None
        limits = {key.removeprefix(_GOAL): goal for key, goal in self._goals.items()}
        logged = {name: values[name] for values in self._log.trajectory for name in limits
                  if name in values}  # fmt: skip
        return GoalReport(
            reached=self.reached,
            step=step if self.ended else None,
            cap=cap,
            limits=limits,
            values=logged | self._latest,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the values of the step that just ended.

        Raises:
            RecipeError: nothing in the run gives the value that a limit is on.
        """
        values = self._log.values
        self._check_there(self._expected.get(state.global_step, ()))
        for key, limit in {**self._limits, **self._goals}.items():
            name = key.removeprefix(_GOAL)
            if math.isnan(value := values.get(name, math.nan)):
                continue  # not observed on this step, or not defined
            self._latest[name] = value
            self.counts[key] = self.counts[key] + 1 if limit.passed(value) else 0
            if key in self._limits and self._is_met(key):
                control.should_training_stop = control.should_log = True
                self._log.note(
                    f"stopped after step {state.global_step}: {name} was {value:.4g}, "
                    f"outside its limit for {limit.for_steps} step(s) in a row (of those with it)"
                )
        if self.reached:
            control.should_training_stop = control.should_log = True

    def _is_met(self, key: str) -> bool:
        limit = self._goals.get(key) or self._limits[key]
        return self.counts[key] >= limit.for_steps

    def _check_there(self, names: Sequence[str]) -> None:
        for name in names:
            given_up = name.startswith(tuple(self._log.given_up))  # which is noted, and ends no run
            if name not in self._log.values and not given_up:
                key = "until" if f"{_GOAL}{name}" in self._goals else "stop_when"
                raise RecipeError(
                    f"{key}: neither a probe nor an evaluation of this run gives {name!r}; "
                    f"{did_you_mean(name, self._log.values)}; add the probe that gives it (some "
                    f"values need a regularizer too), or evaluate.every for a metric"
                )


class StopWhenInterrupted(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Turns the first Ctrl-C or SIGTERM during training into an orderly stop.

    A scheduler (Slurm, Kubernetes) sends SIGTERM some time before it kills. The second signal is
    immediate. ``number`` is the signal that any process received, or None.
    """

    def __init__(self) -> None:
        """Do nothing until training begins."""
        self.number: int | None = None
        self._handlers: dict[int, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Listen for signals, where signals can be listened for."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._receive)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop after this step with a checkpoint, all processes together."""
        number = added_over_ranks({"signal": self.number or 0})["signal"]
        if number:
            self.number = self.number or number
            control.should_training_stop = True
            control.should_save = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave signals to whoever had them before."""
        self.restore()

    def restore(self) -> None:
        """Put the handlers back that were there before training."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.restore()
