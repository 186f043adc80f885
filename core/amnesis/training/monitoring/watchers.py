"""Who watches a run while it goes on, and is shown what came of it: TensorBoard and trackers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from amnesis.training.monitoring.board import Picture, TensorBoard
from amnesis.training.monitoring.trackers import Trackers, build_trackers

if TYPE_CHECKING:
    from transformers.trainer_callback import TrainerCallback

    from amnesis.contracts.probe import Probe
    from amnesis.training.unlearner import FitResult


@dataclass(frozen=True)
class Watchers:
    """TensorBoard's files of a run, and the trackers that its recipe names."""

    board: TensorBoard
    trackers: Trackers

    @classmethod
    def of(
        cls,
        folder: Path,
        opening: Callable[[], Picture],
        *,
        run_name: str,
        report_to: Sequence[str] | None = None,
        probes: Sequence[Probe] = (),
        prefix: str = "",
    ) -> Watchers:
        """Return the watchers of a run whose events are in ``folder``.

        ``opening`` returns what is shown of its beginning, ``report_to`` are trackers, and all tags
        of TensorBoard begin with ``prefix``.

        Raises:
            RecipeError: a tracker cannot be used here.
        """
        names = list(dict.fromkeys(report_to or ()))
        return cls(
            TensorBoard(folder, probes, opening=opening, prefix=prefix),
            Trackers(
                dict(zip(names, build_trackers(names), strict=True)),
                run_name,
                lambda: opening().values,
            ),
        )

    @property
    def callbacks(self) -> list[TrainerCallback]:
        """What the trainer tells of the run."""
        return [self.board, self.trackers]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside ``with`` the run is trained; if that fails, what was written stays readable."""
        try:
            yield
        except BaseException:
            self.board.close()
            raise

    def finish(self, picture: Picture, fitted: FitResult) -> FitResult:
        """Show what came of the run; return what it went through, with the watchers' notes."""
        self.board.finish(picture, fitted.trajectory, fitted.steps)
        self.trackers.finish(picture.values)
        return self.noted(fitted)

    def noted(self, fitted: FitResult) -> FitResult:
        """Return what the run went through, with the watchers' notes so far."""
        notes = dict.fromkeys([*fitted.notes, *self.board.notes, *self.trackers.notes])
        return replace(fitted, notes=list(notes))
