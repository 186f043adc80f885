"""Callbacks of a run: progress, and evaluations along the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers.trainer_callback import TrainerCallback

from amnesis.progress import ProgressCallback, tell_values

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from amnesis.training.report import StepLog


class AfterFirstStep(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Calls an action once the first optimizer step is made."""

    def __init__(self, action: Callable[[], None]) -> None:
        """Take the action."""
        self._action = action

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Call it."""
        self._action()


class StepProgress(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Reports every optimizer step to a progress callback, on the first process only.

    What is logged of a step is told with it.
    """

    def __init__(self, progress: ProgressCallback, what: str) -> None:
        """Report steps to ``progress`` as ``what``."""
        self._progress, self._what = progress, what

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report the step that has ended, unless it is logged: then its values come with it."""
        if state.is_world_process_zero and not control.should_log:
            self._progress(self._what, state.global_step, state.max_steps)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Report a step with its values."""
        if state.is_world_process_zero:
            tell_values(self._progress, self._what, logs or {})
            self._progress(self._what, state.global_step, state.max_steps)


class EvaluateAlong(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Evaluates the model after every k-th step, and adds the values to those of the step."""

    def __init__(
        self,
        every: int,
        evaluate: Callable[[PreTrainedModel], Mapping[str, float]],
        log: StepLog,
        *,
        at_end: bool = False,
    ) -> None:
        """Call ``evaluate`` after every ``every``-th step, and add what it returns to ``log``.

        ``at_end`` does so after the last step too: a goal may be reached there.
        """
        self._every, self._evaluate, self._log = every, evaluate, log
        self._at_end = at_end

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Evaluate the model if a k-th step has ended, and have the step logged."""
        last = self._at_end and state.global_step == state.max_steps
        if state.global_step % self._every == 0 or last:
            with _without_autocast(model):
                self._log.add(self._evaluate(model))
            control.should_log = True


@contextmanager
def _without_autocast(model: Any) -> Iterator[None]:
    """Inside ``with``, compute without the run's autocast, as evaluations before and after do."""
    # accelerate replaces forward by one that autocasts, and keeps the model's own here.
    model_forward, autocast_forward = vars(model).get("_original_forward"), model.forward
    if model_forward is None:
        yield
        return
    model.forward = model_forward
    try:
        yield
    finally:
        model.forward = autocast_forward
