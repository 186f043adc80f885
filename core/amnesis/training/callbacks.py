"""What is watched while a run goes on: TensorBoard scalars, and progress with time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer_callback import TrainerCallback

from amnesis.progress import ProgressCallback

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from amnesis.contracts.probe import Probe
    from amnesis.training.report import StepLog


class TensorBoard(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Writes every logged number as a scalar under its own name.

    Those of single examples, ``<name>/examples/<row>``, become one histogram ``<name>/examples``.
    At the end come the figures that the run's probes make of it.
    """

    def __init__(self, folder: Path, probes: Sequence[Probe] = ()) -> None:
        """Write into ``folder``, which is made when the first number comes."""
        self._folder, self._probes = folder, tuple(probes)
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
            for probe in self._probes:
                try:
                    figures = probe.figures(state.log_history)
                except Exception as error:  # an observer may fail without stopping the run
                    self._writer.add_text("notes", f"{probe.label} drew nothing: {error}")
                    continue
                for name, figure in figures.items():
                    self._writer.add_figure(name, figure, state.global_step)
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


class EvaluateAlong(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Evaluates the model every k-th step; the values join those that the step logs."""

    def __init__(
        self,
        every: int,
        evaluate: Callable[[PreTrainedModel], Mapping[str, float]],
        log: StepLog,
    ) -> None:
        """Take how often, what evaluates, and where the values go."""
        self._every, self._evaluate, self._log = every, evaluate, log

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Evaluate after every k-th step, and see that it is logged."""
        if state.global_step % self._every == 0:
            with _own_forward(model):
                self._log.add(self._evaluate(model))
            control.should_log = True


@contextmanager
def _own_forward(model: Any) -> Iterator[None]:
    """Let the model compute without the run's autocast, as before and after the run."""
    original, wrapped = vars(model).get("_original_forward"), model.forward
    if original is None:
        yield
        return
    model.forward = original
    try:
        yield
    finally:
        model.forward = wrapped
