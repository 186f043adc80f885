"""What a sweep found: its trials beside each other, the front, and the methods on it compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.errors import RecipeError
from amnesis_evaluation.commands.compare.shown import Shown
from amnesis_evaluation.commands.compare.tables import side_by_side
from amnesis_evaluation.commands.sweep.settings import label_of
from amnesis_evaluation.commands.sweep.work import run_folder
from amnesis_evaluation.reports.comparison import Run, grouped, mean_and_error, pareto_front
from amnesis_evaluation.reports.tables import Number, Table

if TYPE_CHECKING:
    from amnesis_evaluation.commands.sweep.goals import Goals
    from amnesis_evaluation.commands.sweep.study import Trial

MOST_COMPARED = 6  # methods of which every two get a sentence


@dataclass(frozen=True)
class Summary:
    """The trials of a sweep so far, which of them are on the front, and these compared."""

    trials: Sequence[Trial]
    goals: Goals
    seeds: Sequence[int]
    folder: Path
    front: frozenset[int]
    comparison: Shown | None

    @classmethod
    def of(
        cls, trials: Sequence[Trial], goals: Goals, seeds: Sequence[int], folder: Path
    ) -> Summary:
        """Return the summary of these trials, whose runs are in ``folder``."""
        finished = [trial for trial in trials if trial.state == "finished"]
        low, high = goals.signs
        points = [(low * x, high * y) for x, y in (trial.goals or (0, 0) for trial in finished)]
        front = [t for t, best in zip(finished, pareto_front(points), strict=True) if best]
        places = [run_folder(folder, t.number, seed) for t in front for seed in seeds]
        return cls(
            trials=trials,
            goals=goals,
            seeds=seeds,
            folder=folder,
            front=frozenset(trial.number for trial in front),
            comparison=_compared(places, goals) if 1 < len(front) <= MOST_COMPARED else None,
        )

    def places(self, trial: Trial) -> list[Path]:
        """Return the folders of a trial's runs."""
        return [run_folder(self.folder, trial.number, seed) for seed in self.seeds]

    def table(self) -> Table:
        """Return all trials, one to a row: what is varied in short, and the goals."""
        rows = [
            [
                f"{trial.number}",
                "★" if trial.number in self.front else "",
                self._varied(trial),
                *self._cells(trial),
            ]
            for trial in self.trials
            if trial.state != "waiting"
        ]
        words = {"minimize": "low", "maximize": "high"}
        first, second = self.goals.metrics
        title = (
            f"★ on the Pareto front of {first} ({words[self.goals.directions[0]]}) against "
            f"{second} ({words[self.goals.directions[1]]}), means over {len(self.seeds)} seed"
            f"{'s' if len(self.seeds) > 1 else ''}"
        )
        return Table(title, ["trial", "front", "configuration", first, second], rows)

    def _varied(self, trial: Trial) -> str:
        """Return what tells a trial from the others of its method."""
        configuration = trial.configuration
        alike = [
            t.configuration.parameters
            for t in self.trials
            if t.configuration.method == configuration.method
        ]
        parts = [
            f"{_short(key, configuration.values)}={label_of(value)}"
            for key, value in configuration.values.items()
            if len({parameters[key] for parameters in alike}) > 1
        ]
        return ", ".join(([configuration.method] if configuration.method else []) + parts)

    def _cells(self, trial: Trial) -> list[str | Number]:
        if trial.state == "repeated":
            return [trial.note, ""]
        if trial.state != "finished":
            return [trial.state, ""]
        pairs = [self.goals.values(place) for place in self.places(trial)]
        return [Number(*mean_and_error(values)) for values in zip(*pairs, strict=True)]

    def notes(self) -> list[str]:
        """Return what is unfinished, and how to compare further."""
        words = {"running": "at other processes", "waiting": "waiting"}
        notes = [f"trial {t.number} failed: {t.note}" for t in self.trials if t.state == "failed"]
        for state, where in words.items():
            count = sum(trial.state == state for trial in self.trials)
            if count:
                notes.append(f"{count} trial{'s are' if count > 1 else ' is'} {where}")
        if len(self.front) > 1 and self.comparison is None:
            notes.append(
                f"{len(self.front)} trials are on the front; compare those that interest you: "
                f"amnesis compare {self.folder}/trials/NUMBER/seed-*"
            )
        return notes

    def document(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "goals": [
                {"metric": metric, "direction": direction}
                for metric, direction in zip(self.goals.metrics, self.goals.directions, strict=True)
            ],
            "seeds": list(self.seeds),
            "trials": [
                {
                    "number": trial.number,
                    "method": trial.configuration.method,
                    "values": dict(trial.configuration.values),
                    "state": trial.state,
                    "goals": None if trial.goals is None else list(trial.goals),
                    "front": trial.number in self.front,
                    "folders": [str(place) for place in self.places(trial) if place.is_dir()],
                    "note": trial.note,
                }
                for trial in self.trials
            ],
            "comparison": None if self.comparison is None else self.comparison.document(()),
            "notes": self.notes(),
        }


def _short(key: str, keys: Iterable[str]) -> str:
    """Return the last part of a key, or all of it where another of ``keys`` ends the same."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _compared(places: Iterable[Path], goals: Goals) -> Shown | None:
    """Return the runs of the front compared; None where low is not better and high not."""
    if goals.signs != (1, 1):
        return None
    try:
        groups = grouped([Run.load(place) for place in places])
    except RecipeError:
        return None
    return side_by_side(groups, goals.metrics, goals.metrics, None, pairs=False)
