"""Shows a run's probes the model right before and right after the optimizer moves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers.trainer_callback import TrainerCallback

from amnesis.contracts import Probe, StepContext


class UpdateWatch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Calls the probes that watch updates; a failure is told, and stops nothing."""

    def __init__(
        self,
        probes: Sequence[Probe],
        due: Callable[[], Sequence[int]],
        context: Callable[[], StepContext],
        values: Callable[[], dict[str, float]],
        failed: Callable[[int, Exception], None],
    ) -> None:
        """Take the probes, which of them observe this step, and where what they see goes."""
        self._probes, self._due, self._context = probes, due, context
        self._values, self._failed = values, failed
        self._held: dict[int, Any] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Let each probe that is due look at the model before the update."""
        self._held.clear()
        for index in self._due():
            probe = self._probes[index]
            if not probe.watches_update:
                continue
            try:
                self._held[index] = probe.before_update(self._context())
            except Exception as error:  # an observer may fail without stopping the run
                self._failed(index, error)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Let the same probes look at it after the update."""
        for index, held in self._held.items():
            try:
                seen = self._probes[index].after_update(self._context(), held)
                self._values().update(seen)
            except Exception as error:  # an observer may fail without stopping the run
                self._failed(index, error)
        self._held.clear()
