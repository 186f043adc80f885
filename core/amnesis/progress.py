"""Progress of long work: the callback that reports it, and how a person is shown it.

On a terminal and in a notebook there are bars; anywhere else, as under nohup or in a scheduler's
log, a line now and then.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO, runtime_checkable

from amnesis.distributed.processes import world

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

# Called with what is being done, how many units of it are done, and how many there are.
ProgressCallback = Callable[[str, int, int], None]
_SHOWN = 4  # values beside a bar or on a line
_RARE, _OFTEN = 30.0, 5.0  # seconds between two lines at most, and at least
_WORTH_A_LINE = 10.0  # seconds of work, the end of which is said
_TELLING = 1.0  # seconds of work, from which on its speed tells how long the rest will take


_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Inside ``with`` nobody is shown progress or notes, if ``quiet``."""
    token = _quiet.set(quiet)
    try:
        yield
    finally:
        _quiet.reset(token)


def is_quiet() -> bool:
    """Whether only results and errors are wanted."""
    return _quiet.get()


@contextmanager
def watched(progress: ProgressCallback | None) -> Iterator[ProgressCallback]:
    """Yield a callback: the one that is there, or a notebook's bars, or one that shows nothing."""
    if progress is not None:
        yield progress
    elif in_notebook():
        with ProgressBars() as bars:
            yield bars
    else:
        yield lambda what, done, total: None


@runtime_checkable
class TakesValues(Protocol):
    """A progress callback that is also told values of the work, such as the loss of a step."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units of ``what`` are done."""

    def tell(self, what: str, values: Mapping[str, float]) -> None:
        """Show values of ``what`` from here on; those told before stay where they are not new."""


class Prefixed:
    """A progress callback that passes all on to another, below a heading."""

    def __init__(self, heading: str, progress: ProgressCallback) -> None:
        """Begin every ``what`` with ``heading``."""
        self._heading, self._progress = heading, progress

    def __call__(self, what: str, done: int, total: int) -> None:
        """Pass it on."""
        self._progress(f"{self._heading}: {what}", done, total)

    def tell(self, what: str, values: Mapping[str, float]) -> None:
        """Pass values on to a callback that takes them."""
        tell_values(self._progress, f"{self._heading}: {what}", values)


def tell_values(progress: ProgressCallback, what: str, values: Mapping[str, float]) -> None:
    """Tell a callback values of the work, if it takes any."""
    if isinstance(progress, TakesValues):
        progress.tell(what, values)


class ProgressBars:
    """A progress callback that shows how far each kind of work is, and the time left.

    Something is shown inside ``with`` only, on the first rank, and to standard error: one bar per
    kind of work on a terminal and in a notebook, lines elsewhere, nothing :func:`quietly`.
    """

    def __init__(self) -> None:
        """Create without drawing anything."""
        self._shown: _Bars | ProgressLines | None = None

    def __enter__(self) -> Self:
        if not is_quiet() and world()[0] == 0:
            notebook = in_notebook() and importlib.util.find_spec("ipywidgets") is not None
            drawn = notebook or sys.stderr.isatty()
            self._shown = _Bars(notebook=notebook) if drawn else ProgressLines(sys.stderr)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(self._shown, _Bars):
            self._shown.stop()
        self._shown = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units of ``what`` are done."""
        if self._shown is not None:
            self._shown(what, done, total)

    def tell(self, what: str, values: Mapping[str, float]) -> None:
        """Show values of the work beside it."""
        if self._shown is not None:
            self._shown.tell(what, values)


class _Bars:
    """One bar per kind of work."""

    def __init__(self, *, notebook: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._bars: RichProgress = Bars(
            TextColumn("{task.description:<32}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[values]}", markup=False),
            console=Console(force_jupyter=True) if notebook else Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._values: dict[str, dict[str, float]] = {}
        self._bars.start()

    def stop(self) -> None:
        """Draw nothing further."""
        self._bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Move a bar, which is made where there is none, or where that is full."""
        if what not in self._tasks or self._bars.tasks[self._tasks[what]].finished:
            self._tasks[what] = self._bars.add_task(what, total=total, values="")
        values = shown_values(self._values.get(what, {}))
        self._bars.update(self._tasks[what], completed=done, total=total, values=values)

    def tell(self, what: str, values: Mapping[str, float]) -> None:
        """Show values beside the bar when it moves next."""
        self._values.setdefault(what, {}).update(values)


@dataclass
class _Work:
    """How far a kind of work is: when it began, from where, and what was last said of it."""

    since: float
    first: int
    said: int


class ProgressLines:
    """A line now and then of work that goes on.

    The first is written at once. Then one is due every half minute, and at each tenth of a work,
    but no two within five seconds; so is one at the end of a work that was not over in a moment.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Write lines to ``stream``; ``clock`` returns seconds."""
        self._stream, self._clock = stream, clock
        self._last: float | None = None
        self._works: dict[str, _Work] = {}
        self._values: dict[str, dict[str, float]] = {}

    def tell(self, what: str, values: Mapping[str, float]) -> None:
        """Add values to the work's next line."""
        self._values.setdefault(what, {}).update(values)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Write a line, if one is due."""
        now = self._clock()
        work = self._works.get(what)
        if work is None or done < work.said:  # the same kind of work, again
            work = self._works[what] = _Work(now, done, done)
        tenth = total > 0 and done * 10 // total > work.said * 10 // total
        if self._due(now, work, tenth=tenth, ends=done >= total):
            self._last, work.said = now, done
            print(self._line(what, done, total, now, work), file=self._stream, flush=True)
        if done >= total:
            self._works.pop(what)

    def _due(self, now: float, work: _Work, *, tenth: bool, ends: bool) -> bool:
        if self._last is None:
            return True
        if ends and now - work.since >= _WORTH_A_LINE:
            return True
        return now - self._last >= (_OFTEN if tenth else _RARE)

    def _line(self, what: str, done: int, total: int, now: float, work: _Work) -> str:
        parts = [f"{what}: {done} of {total}"]
        if values := shown_values(self._values.get(what, {})):
            parts.append(values)
        if done >= total:
            parts += [f"took {_duration(now - work.since)}"] if now - work.since >= 1 else []
        elif done > work.first:
            left = (now - work.since) / (done - work.first) * (total - done)
            # Of a moment's work nothing is known yet, and "0 s left" halfway would be no news.
            if now - work.since >= _TELLING and round(left):
                parts.append(f"about {_duration(left)} left")
        return ", ".join(parts)


def shown_values(values: Mapping[str, float]) -> str:
    """Return what of a step's values tells most: losses, and what was evaluated along the way."""
    ours = ("gradients/", "update/", "gradient_norm", "learning_rate", "epoch", "step")
    losses = [name for name in values if name.endswith("/loss")]
    metrics = [
        name
        for name in values
        if name.startswith(("forget/", "retain/")) and name.count("/") == 1 and name not in losses
    ]
    names = [name for name in [*losses, *metrics] if not name.startswith(ours)]
    return ", ".join(f"{name} {values[name]:.4g}" for name in names[:_SHOWN])


def in_notebook() -> bool:
    """Whether this is a notebook's process, which has cells below which things are drawn."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
