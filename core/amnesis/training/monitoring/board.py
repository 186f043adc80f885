"""TensorBoard's picture of a run: where it began, the way it went, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.trainer_callback import TrainerCallback

from amnesis.distributed.processes import world
from amnesis.errors import one_line
from amnesis.training.monitoring.events import EventFile, Layout
from amnesis.training.monitoring.units import Units

if TYPE_CHECKING:
    from amnesis.contracts.probe import Probe

Values = Mapping[str, float]
PICTURES = 4  # how often along a run the probes draw theirs
_DESCRIPTIONS = {
    "forget/loss": "the objective on the step's forget batch; the smaller the more is forgotten",
    "retain/loss": "the regularizer on the step's retain batch",
    "forget/weight/": "the weight of one of several terms of the objective",
    "retain/weight/": "the weight of one of several terms of the regularizer",
    "train/loss": "the mean negative log-probability per token of the step's batch, in nats",
    "gradient_norm": "of the combined gradient, before it is clipped",
    "learning_rate": "of the step",
    "gradients/forget_norm": "of the forget stream's gradient, before the two are combined",
    "gradients/retain_norm": "of the retain stream's gradient, before the two are combined",
    "gradients/cosine": "between the two streams' gradients; below 0 they pull apart",
    "gradients/conflict_share": "the share of weights that the two gradients push opposite ways",
    "gradients/zero_forget_share": "the share of weights with a forget gradient of exactly 0",
}
_CHARTS = {
    "losses": ("forget/loss", "retain/loss"),
    "gradient norms": ("gradients/forget_norm", "gradients/retain_norm", "gradient_norm"),
    "conflict of the two gradients": ("gradients/cosine", "gradients/conflict_share"),
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is shown of a moment: before the first step, or after the last.

    Attributes:
        values: the metrics' values of the run's model.
        retrained: the same of a model trained without the forget set: where the curves should go.
        texts: Markdown by tag.
        answers: Markdown by tag that holds texts to forget; it is kept apart, to be deleted.
        descriptions: what values are, by the beginnings of their names.
        hyper_parameters: what the run was told, for TensorBoard's table of runs.
    """

    values: Values = field(default_factory=dict)
    retrained: Values = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    hyper_parameters: Mapping[str, str | float | bool] = field(default_factory=dict)


class TensorBoard(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Writes each logged value as a scalar of its name, and now and then the probes' figures.

    Values of single examples, ``<name>/examples/<row>``, become a histogram ``<name>/examples``.
    A run that goes on from a checkpoint goes on in the picture: what an earlier process wrote of
    later steps is purged. Nothing of this can stop a run: what fails is noted.
    """

    def __init__(
        self,
        folder: Path,
        probes: Sequence[Probe] = (),
        *,
        opening: Callable[[], Picture] | None = None,
        prefix: str = "",
    ) -> None:
        """Write into ``folder``, which is created with the first value.

        All tags begin with ``prefix``. ``opening`` returns what is shown of the model before the
        first step; with one, the file stays open until :meth:`finish`.
        """
        self._probes, self._opening, self._prefix = tuple(probes), opening, prefix
        self._events = EventFile(folder)
        self._describe({**_DESCRIPTIONS, **_described(probes)})
        self._answers = EventFile(folder / "answers")  # where amnesis.runs.answers deletes them
        self._units = Units(self._probes)
        self._drawn = 0
        self._broken = False
        self.notes: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show where the run begins, or take up the picture of the steps before a checkpoint."""
        if not state.is_world_process_zero:
            return
        for entry in state.log_history:
            self._units.see(entry)
        self._drawn = state.global_step
        with self._tolerating():
            if state.global_step:
                self._events.open(since=state.global_step + 1)
            elif self._opening is not None:
                self._open(self._opening())

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any
    ) -> None:
        """Write the values of a step, on the first process only."""
        if state.is_world_process_zero and logs and not self._broken:
            with self._tolerating():
                self._write(logs, state.global_step)
                apart = max(1, state.max_steps // PICTURES)
                if state.global_step // apart > self._drawn // apart:
                    self._draw(state.log_history, state.global_step)
                if control.should_save:
                    # A checkpoint must not be ahead of the picture, or a killed run leaves a gap.
                    self._events.flush()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Have on disk what is known, where a checkpoint is about to be written."""
        if state.is_world_process_zero and control.should_save:
            with self._tolerating():
                self._events.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw the probes' last figures, and have all on disk."""
        if not self._events.is_open:
            return
        with self._tolerating():
            if self._drawn < state.global_step:
                self._draw(state.log_history, state.global_step)
            self._events.flush()
        if self._opening is None:
            with self._tolerating():
                self._events.close()

    def finish(self, picture: Picture, trajectory: Sequence[Values], steps: int) -> None:
        """Show what came of a run, whether this process trained it or an earlier one did."""
        if world()[0] != 0:
            return
        last = trajectory[-1] if trajectory else {}
        with self._tolerating():
            if not self._events.is_open:
                self._take_up(trajectory, steps)
            values = {
                name: value
                for name, value in picture.values.items()
                if name not in last or last["step"] != steps  # evaluated along, and there already
            }
            self._scalars(values, steps)
            self._moment(picture, steps)
            self._hyper_parameters(picture, done=True)
        self.close()

    def close(self) -> None:
        """Write what is not on disk yet, and nothing further."""
        with self._tolerating():
            self._events.close()

    def _open(self, picture: Picture) -> None:
        self._describe(picture.descriptions)
        self._events.open(since=0)
        self._scalars(picture.values, 0)
        self._moment(picture, 0)
        self._events.layout(self._layout(picture))
        self._hyper_parameters(picture, done=False)
        self._events.flush()

    def _take_up(self, trajectory: Sequence[Values], steps: int) -> None:
        """Go on after an earlier process, which may have written the last step in part.

        Where nobody wrote anything, it is all written now.
        """
        for entry in trajectory:
            self._units.see(entry)
        since = steps if self._events.exists else 0
        if since or self._opening is None:
            self._events.open(since=since)
        else:
            self._open(self._opening())
        for entry in trajectory:
            if entry["step"] >= since:
                values = {name: value for name, value in entry.items() if name != "step"}
                self._write(values, int(entry["step"]))
        self._draw(trajectory, steps)

    def _moment(self, picture: Picture, step: int) -> None:
        for name, value in picture.retrained.items():
            self._events.scalar(f"{self._prefix}retrained/{name}", value, step)
        for tag, text in picture.texts.items():
            self._events.text(tag, text, step)
        if picture.answers:
            self._answers.open(since=step, private=True)
            for tag, text in picture.answers.items():
                self._answers.text(tag, text, step)
            self._answers.close()

    def _hyper_parameters(self, picture: Picture, *, done: bool) -> None:
        if picture.hyper_parameters:
            names = [self._tag(name) for name in picture.values or ("loss",)]
            self._events.hyper_parameters(picture.hyper_parameters, names, done=done)

    def _write(self, logs: Values, step: int) -> None:
        self._units.see(logs)
        by_example: dict[str, list[float]] = {}
        scalars: dict[str, float] = {}
        for name, value in logs.items():
            if name == "epoch" or not isinstance(value, (int, float)):
                continue
            group, _, row = name.rpartition("/")
            shown = self._units.shown(name, value)
            if group.endswith("/examples") and row.isdecimal():
                by_example.setdefault(group, []).append(value)
            elif shown is not None:
                scalars[shown[0]] = shown[1]
        self._scalars(scalars, step)
        for group, values in by_example.items():
            self._events.histogram(self._tag(group), values, step)

    def _scalars(self, values: Values, step: int) -> None:
        for name, value in values.items():
            self._events.scalar(self._tag(name), value, step)

    def _draw(self, trajectory: Sequence[Values], step: int) -> None:
        """Write the figures that the probes draw of the way so far."""
        self._drawn = step
        for probe in self._probes:
            try:
                figures = probe.figures(trajectory)
            except Exception as error:  # an observer may fail without stopping the run
                self._note(f"{probe.label} drew no figure: {one_line(error)}")
                continue
            try:
                for name, figure in figures.items():
                    self._events.figure(self._tag(name), figure, step)
            except Exception as error:  # it may be no figure, or not be drawn
                self._note(f"the figures of {probe.label} were not written: {one_line(error)}")

    def _layout(self, picture: Picture) -> Layout:
        """Return the charts of one metric on all sets, of the two streams, and of the probes."""
        metrics: dict[str, list[str]] = {}
        for name in picture.values:
            metrics.setdefault(name.rpartition("/")[2], []).append(name)
        goals = {name: f"retrained/{name}" for name in picture.retrained}
        evaluated = {
            metric: [*names, *(goals[name] for name in names if name in goals)]
            for metric, names in metrics.items()
        }
        charts: dict[str, Mapping[str, Sequence[str]]] = {
            "Does it forget, and keep the rest?": evaluated,
            "Effects on both sets": {t: n for p in self._probes for t, n in p.charts.items()},
            "The two streams": _CHARTS,
        }
        return {
            category: {
                title: [(self._tag(name), self._units.tags(name)) for name in names]
                for title, names in of_category.items()
            }
            for category, of_category in charts.items()
            if of_category
        }

    def _describe(self, descriptions: Mapping[str, str]) -> None:
        self._events.describe({self._tag(name): text for name, text in descriptions.items()})

    def _tag(self, name: str) -> str:
        return name if name.startswith(self._prefix) else f"{self._prefix}{name}"

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    @contextmanager
    def _tolerating(self) -> Iterator[None]:
        """Note an error in place of stopping a run for its logs, and write no more of them."""
        try:
            yield
        except Exception as error:  # a full disk, a broken file system, a writer thread that died
            self._broken = True
            self._note(f"TensorBoard's logs end early: {one_line(error)}")


def _described(probes: Sequence[Probe]) -> dict[str, str]:
    """Return what the values of probes are, by the beginnings of their names."""
    return {prefix: f"{probe.label}: {probe.formula}" for probe in probes for prefix in probe.logs}
