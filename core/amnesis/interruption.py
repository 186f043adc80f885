"""Ctrl-C: the step under way is finished, a checkpoint written, and the run stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from transformers.trainer_callback import TrainerCallback


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
