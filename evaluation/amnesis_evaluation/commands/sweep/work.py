"""A sweep's work: everything checked first, then trial after trial until none is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amnesis.config.problems import Problems
from amnesis.distributed.processes import from_first_rank, join
from amnesis.errors import NonFiniteError, RecipeError, ResourceError
from amnesis.progress import quietly
from amnesis.runs.preflight import Prepared, prepare
from amnesis.runs.run import run
from amnesis_evaluation.commands.sweep.goals import Goals, goals_of
from amnesis_evaluation.commands.sweep.space import Configuration, Space
from amnesis_evaluation.commands.sweep.study import Claimed, SharedStudy, Trial

if TYPE_CHECKING:
    from amnesis.discovery.registry import Registry
    from amnesis.progress import ProgressCallback
    from amnesis_evaluation.commands.sweep.settings import Sweep


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run is given besides its recipe."""

    device: str | None
    trust_remote_code: bool
    reference_cache: Path | None
    registry: Registry


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A sweep that can run: its space, its goals, and what one of its runs takes."""

    sweep: Sweep
    space: Space
    goals: Goals
    first: Prepared


def check(sweep: Sweep, machine: Machine) -> Checked:
    """Check every key, choice, name, file and metric of a sweep; no weight is loaded.

    Every combination of a grid is read, and of any space a few are looked at to the end, such that
    each choice and each end of a range is among them.

    Raises:
        RecipeError: listing every problem once, with the first configuration that has it.
    """
    join(machine.device)
    space, problems = Space(sweep, sweep.recipe), Problems()
    seed = sweep.seeds[0]
    found: dict[str, Configuration] = {}

    def attempt(configuration: Configuration, *, whole: bool) -> Prepared | None:
        try:
            recipe = space.recipe(configuration, seed)
            if not whole:
                return None
            return prepare(
                recipe,
                device=machine.device,
                trust_remote_code=machine.trust_remote_code,
                registry=machine.registry,
            )
        except RecipeError as error:
            found.setdefault(str(error).removeprefix(f"{configuration}: "), configuration)
            return None

    looked_at = [attempt(configuration, whole=True) for configuration in space.covering()]
    if sweep.search == "grid":
        for configuration in space.grid():
            attempt(configuration, whole=False)
    for message, configuration in found.items():
        problems.found.append(f"{configuration}: {message}")
    problems.raise_any("the sweep cannot start")
    first = next(prepared for prepared in looked_at if prepared is not None)
    return Checked(sweep=sweep, space=space, goals=goals_of(sweep, first), first=first)


def open_study(checked: Checked, folder: Path) -> SharedStudy:
    """Open the sweep's study in its folder, or begin it there."""
    return SharedStudy.open(checked.sweep, checked.space, folder, checked.goals.directions)


def work(
    checked: Checked,
    study: SharedStudy | None,
    folder: Path,
    machine: Machine,
    progress: ProgressCallback,
    said: Callable[[str], None],
) -> None:
    """Run trials until the study has none left to begin or to take up.

    ``study`` is the first process's of a group that runs each trial together; ``said`` is told of
    each trial that ended.

    Raises:
        AmnesisError: something is wrong that other trials would meet too. The trial is left for
            whoever comes next.
    """
    count = _Count(study, len(checked.sweep.seeds), progress)
    try:
        while (claimed := from_first_rank(lambda: _claim(study))) is not None:
            outcome = _run_trial(checked, folder, claimed, machine, count)
            if study is not None:
                if isinstance(outcome, str):
                    study.fail(claimed, outcome)
                else:
                    study.finish(claimed, outcome)
                count.ended()
                said(_line(study, claimed, checked.goals))
    finally:
        if study is not None:
            study.let_go()


def _claim(study: SharedStudy | None) -> Claimed | None:
    return None if study is None else study.claim()


def _run_trial(
    checked: Checked, folder: Path, claimed: Claimed, machine: Machine, count: _Count
) -> tuple[float, float] | str:
    """Return the means of both goals over the seeds, or why this configuration has none.

    A seed that is finished is not run again, and one that was cut off goes on.
    """
    pairs = []
    for done, seed in enumerate(checked.sweep.seeds):
        count.within(done)
        place = run_folder(folder, claimed.number, seed)
        try:
            recipe = checked.space.recipe(claimed.configuration, seed)
            with quietly():  # what to set is for a run of its own: here others are tried anyway
                run(
                    recipe,
                    place,
                    resume=True,
                    device=machine.device,
                    trust_remote_code=machine.trust_remote_code,
                    reference_cache=machine.reference_cache,
                    registry=machine.registry,
                )
        except (NonFiniteError, ResourceError, RecipeError) as error:  # others may do better
            return f"seed {seed}: {error}"
        pairs.append(checked.goals.values(place))
    forgetting, retention = zip(*pairs, strict=True)
    return sum(forgetting) / len(pairs), sum(retention) / len(pairs)


def run_folder(folder: Path, number: int, seed: int) -> Path:
    """Return the folder of a trial's run with a seed."""
    return folder / "trials" / f"{number:04d}" / f"seed-{seed}"


def _line(study: SharedStudy, claimed: Claimed, goals: Goals) -> str:
    trial = next(one for one in study.trials() if one.number == claimed.number)
    values = (
        f"failed: {trial.note}"
        if trial.goals is None
        else ", ".join(
            f"{metric} {value:.4g}"
            for metric, value in zip(goals.metrics, trial.goals, strict=True)
        )
    )
    return f"trial {trial.number} ({trial.configuration}): {values}"


class _Count:
    """The runs that are done, those of other processes among them."""

    def __init__(self, study: SharedStudy | None, seeds: int, progress: ProgressCallback) -> None:
        self._study, self._seeds, self._progress = study, seeds, progress
        self._done = self._count()
        self._total = 0 if study is None else study.size()

    def _count(self) -> int:
        return 0 if self._study is None else ended(self._study.trials())

    def within(self, runs: int) -> None:
        """Say that so many runs of a trial are done."""
        if self._study is not None:
            self._progress("runs", self._done * self._seeds + runs, self._total * self._seeds)

    def ended(self) -> None:
        """Say that a trial ended."""
        self._done = self._count()
        self.within(0)


def ended(trials: Sequence[Trial]) -> int:
    """Return how many trials have ended, well or not."""
    return sum(trial.state in ("finished", "failed", "repeated") for trial in trials)
