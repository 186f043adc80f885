"""Progress of long work: the callback that reports it, and the bars on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from amnesis.distributed.processes import world

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

# Called with what is being done, how many units of it are done, and how many there are.
ProgressCallback = Callable[[str, int, int], None]


class ProgressBars:
    """A progress callback that draws one bar per kind of work, with the time left.

    Bars are shown inside ``with`` only, on the first rank, and where standard error is a terminal.
    """

    def __init__(self) -> None:
        """Create without drawing anything."""
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
        """Show that ``done`` of ``total`` units of ``what`` are done."""
        if self._bars is None:
            return
        if what not in self._tasks or self._bars.tasks[self._tasks[what]].finished:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)
