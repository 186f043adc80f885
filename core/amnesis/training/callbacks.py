"""What is watched while a run goes on: TensorBoard scalars, and progress with time left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers.trainer_callback import TrainerCallback

from amnesis.progress import ProgressCallback
from amnesis_plugins.g_effect.pictures import heat_maps, layers_by_step


class TensorBoard(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Writes every logged number as a scalar under its own name.

    Those of single examples, ``<name>/examples/<row>``, become one histogram ``<name>/examples``.
    At the end G-effects by layer become a picture of layers × steps, if matplotlib is installed.
    """

    def __init__(self, folder: Path) -> None:
        """Write into ``folder``, which is made when the first number comes."""
        self._folder = folder
        self._writer: Any = None

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any
    ) -> None:
        """Write the numbers of one step, on one process only."""
        if not state.is_world_process_zero or not logs:
            return
        import torch

        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(log_dir=str(self._folder))
        together: dict[str, list[float]] = {}
        for name, value in logs.items():
            if name == "epoch" or not isinstance(value, (int, float)):
                continue
            group, _, row = name.rpartition("/")
            if group.endswith("/examples") and row.isdecimal():
                together.setdefault(group, []).append(value)
            else:
                self._writer.add_scalar(name, value, state.global_step)
        for group, values in together.items():
            self._writer.add_histogram(group, torch.tensor(values), state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw the run, flush and close."""
        if self._writer is not None:
            for prefix in ("g_effect", "g_effect/sets"):
                maps = layers_by_step(state.log_history, prefix)
                figure = heat_maps(maps) if maps else None
                if figure is not None:
                    self._writer.add_figure(f"{prefix}/layers", figure, state.global_step)
            self._writer.close()
            self._writer = None


class StepProgress(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Tells a progress callback of every optimizer step."""

    def __init__(self, progress: ProgressCallback, what: str) -> None:
        """Report under the name ``what``."""
        self._progress, self._what = progress, what

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report one step."""
        if state.is_world_process_zero:
            self._progress(self._what, state.global_step, state.max_steps)


class JudgeAlong(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Judges the model every k-th step; the values join those that the step logs."""

    def __init__(
        self,
        every: int,
        judge: Callable[[], Mapping[str, float]],
        values: Callable[[], dict[str, float]],
    ) -> None:
        """Take how often, what judges, and where the values go."""
        self._every, self._judge, self._values = every, judge, values

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Judge after every k-th step, and see that it is logged."""
        if state.global_step % self._every == 0:
            self._values().update(self._judge())
            control.should_log = True
