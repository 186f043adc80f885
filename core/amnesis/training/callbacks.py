"""Callbacks of a run: TensorBoard, progress, and evaluations along the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer_callback import TrainerCallback

from amnesis.errors import one_line
from amnesis.progress import ProgressCallback

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from amnesis.contracts.probe import Probe
    from amnesis.training.report import StepLog


class TensorBoard(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Writes each logged value as a scalar of its name, and at the end the probes' figures.

    Values of single examples, ``<name>/examples/<row>``, become a histogram ``<name>/examples``.
    """

    def __init__(self, folder: Path, probes: Sequence[Probe] = ()) -> None:
        """Write into ``folder``, which is created with the first value."""
        self._folder, self._probes = folder, tuple(probes)
        self._writer: Any = None
        self.notes: list[str] = []

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any
    ) -> None:
        """Write the values of a step, on the first process only."""
        if state.is_world_process_zero and logs and not self.notes:
            with self._tolerating():
                self._write(logs, state.global_step)

    def _write(self, logs: Mapping[str, float], step: int) -> None:
        import torch

        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(log_dir=str(self._folder))
        by_example: dict[str, list[float]] = {}
        for name, value in logs.items():
            if name == "epoch" or not isinstance(value, (int, float)):
                continue
            group, _, row = name.rpartition("/")
            if group.endswith("/examples") and row.isdecimal():
                by_example.setdefault(group, []).append(value)
            else:
                self._writer.add_scalar(name, value, step)
        for group, values in by_example.items():
            self._writer.add_histogram(group, torch.tensor(values), step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the probes' figures, and close the file."""
        if self._writer is None:
            return
        for probe in self._probes:
            try:
                figures = probe.figures(state.log_history)
            except Exception as error:  # an observer may fail without stopping the run
                self.notes.append(f"{probe.label} drew no figure: {one_line(error)}")
                continue
            with self._tolerating(f"the figures of {probe.label} were not written"):
                for name, figure in figures.items():
                    self._writer.add_figure(name, figure, state.global_step)
        with self._tolerating():
            self._writer.close()
        self._writer = None

    @contextmanager
    def _tolerating(self, what: str = "TensorBoard's logs end early") -> Iterator[None]:
        """Note an error in place of stopping a run for its logs."""
        try:
            yield
        except Exception as error:  # a full disk, a broken file system, a writer thread that died
            self.notes.append(f"{what}: {one_line(error)}")


class AfterFirstStep(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Calls an action once the first optimizer step is made."""

    def __init__(self, action: Callable[[], None]) -> None:
        """Take the action."""
        self._action = action

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Call it."""
        self._action()


class StepProgress(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Reports every optimizer step to a progress callback, on the first process only."""

    def __init__(self, progress: ProgressCallback, what: str) -> None:
        """Report steps to ``progress`` as ``what``."""
        self._progress, self._what = progress, what

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Report the step that has ended."""
        if state.is_world_process_zero:
            self._progress(self._what, state.global_step, state.max_steps)


class EvaluateAlong(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Evaluates the model after every k-th step, and adds the values to those of the step."""

    def __init__(
        self,
        every: int,
        evaluate: Callable[[PreTrainedModel], Mapping[str, float]],
        log: StepLog,
    ) -> None:
        """Call ``evaluate`` after every ``every``-th step, and add what it returns to ``log``."""
        self._every, self._evaluate, self._log = every, evaluate, log

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Evaluate the model if a k-th step has ended, and have the step logged."""
        if state.global_step % self._every == 0:
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
