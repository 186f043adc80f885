"""What is watched while a run goes on: TensorBoard scalars, and progress with time left."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from transformers.trainer_callback import TrainerCallback

from amnesis.distributed import world
from amnesis.g_effect.pictures import heat_maps, layers_by_step

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

ProgressCallback = Callable[[str, int, int], None]


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


class Progress:
    """Progress bars with time left on a terminal; silent where there is none."""

    def __init__(self) -> None:
        """Prepare; nothing is shown before the first call."""
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        if sys.stderr.isatty() and world()[0] == 0:
            self._bars = Bars(
                TextColumn("{task.description:<32}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=Console(stderr=True),
            )
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` are done of ``what``."""
        if self._bars is None:
            return
        if what not in self._tasks or self._bars.tasks[self._tasks[what]].finished:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)
