"""The study that processes share: each configuration is claimed by one of them, and run once.

Optuna stores what was drawn and what came of it. Who is at work on a trial is told by a lock on the
trial's folder, which the system releases when a process dies, however it dies: a trial that is
running in the study and not locked has lost its process, and the next one to ask takes it up.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from amnesis.config.documents import read_document
from amnesis.errors import OutputError, RecipeError, first_line
from amnesis.storage import read_record, write_json, write_text
from amnesis_evaluation.commands.inputs import make_place
from amnesis_evaluation.commands.sweep.settings import Sweep
from amnesis_evaluation.commands.sweep.space import METHOD, Configuration, Space

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as OptunaTrial

SWEEP, TRIALS, LOCK, OUTCOME = "sweep.yaml", "trials", ".lock", "trial.json"

State = Literal["waiting", "running", "finished", "failed", "repeated"]


@dataclass(frozen=True)
class Claimed:
    """A trial that this process alone is at work on."""

    number: int
    configuration: Configuration


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial as the study knows it.

    ``goals`` are its means of forgetting and retention; ``note`` is why it failed, or which earlier
    trial it repeats.
    """

    number: int
    configuration: Configuration
    state: State
    goals: tuple[float, float] | None = None
    note: str = ""


class SharedStudy:
    """A sweep's study in its folder; several processes may have it open."""

    def __init__(self, study: Study, sweep: Sweep, space: Space, folder: Path) -> None:
        """Take what :meth:`open` opened."""
        self._study, self._sweep, self._space, self.folder = study, sweep, space, folder
        self._locks: dict[int, BaseFileLock] = {}

    @classmethod
    def open(
        cls, sweep: Sweep, space: Space, folder: Path, directions: Sequence[str]
    ) -> SharedStudy:
        """Open the study in ``folder``, or begin it there; ``directions`` are of the two goals.

        Raises:
            OutputError: the folder holds another sweep.
            RecipeError: Optuna is not installed, or the storage cannot be opened.
        """
        optuna = _optuna()
        make_place(folder)
        with _alone_in(folder):
            _check_same_sweep(sweep, folder)
            try:
                study = optuna.create_study(
                    storage=_storage(sweep.storage, folder),
                    study_name=folder.resolve().name,  # a database may hold several
                    directions=list(directions),
                    load_if_exists=True,
                )
            except Exception as error:  # every database has errors of its own
                raise RecipeError(
                    f"storage {sweep.storage!r} cannot be opened: {first_line(error)}"
                ) from error
            shared = cls(study, sweep, space, folder)
            if sweep.search == "grid":
                shared._add_grid()
        return shared

    def _add_grid(self) -> None:
        """Add what of the grid is not in the study: all of it, or the rest after a kill."""
        from optuna.trial import TrialState, create_trial

        there = len(self._study.get_trials(deepcopy=False))
        for configuration in itertools.islice(self._space.grid(), there, None):
            distributions = self._space.distributions(configuration.method)
            self._study.add_trial(
                create_trial(
                    state=TrialState.WAITING,
                    params=self._space.stored(configuration),
                    distributions={**self._method_distribution(), **distributions},
                )
            )

    def _method_distribution(self) -> dict[str, Any]:
        from optuna.distributions import CategoricalDistribution

        methods = self._space.methods()
        return {METHOD: CategoricalDistribution(methods)} if methods else {}

    # -- one trial --------------------------------------------------------------------------------

    def claim(self) -> Claimed | None:
        """Return a trial for this process to run; None where none is left to begin or take up."""
        with _alone_in(self.folder):
            return self._abandoned() or self._next()

    def _abandoned(self) -> Claimed | None:
        """Return a trial whose process died; one that died before it was drawn whole is failed."""
        from optuna.trial import TrialState

        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self._lock(frozen.number):
                continue
            configuration = self._space.read(frozen.params)
            if configuration is not None:
                return Claimed(frozen.number, configuration)
            self._study.tell(frozen.number, state=TrialState.FAIL)
            self._release(frozen.number)
        return None

    def _next(self) -> Claimed | None:
        from optuna.trial import TrialState

        while self._has_more():
            trials = self._study.get_trials(deepcopy=False)
            # The draws depend on the number of the trial alone, not on which process makes them.
            self._study.sampler = _sampler(self._sweep, len(trials))
            trial = self._study.ask(self._method_distribution())
            self._lock(trial.number)
            for name, distribution in self._space.distributions(trial.params.get(METHOD)).items():
                _draw(trial, name, distribution)
            configuration = self._space.read(trial.params)
            assert configuration is not None  # noqa: S101  # all of it was just drawn
            first = next((one for one in trials if one.params == trial.params), None)
            if first is None or first.number == trial.number:
                return Claimed(trial.number, configuration)
            # The same again: what it would find is known, or being found.
            self._write(trial.number, {"repeats": first.number})
            if first.state == TrialState.COMPLETE:
                self._study.tell(trial.number, first.values)
            else:
                self._study.tell(trial.number, state=TrialState.FAIL)
            self._release(trial.number)
        return None

    def _has_more(self) -> bool:
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        if self._sweep.search == "grid":
            return any(trial.state == TrialState.WAITING for trial in trials)
        whole = [trial for trial in trials if self._space.read(trial.params) is not None]
        return len(whole) < (self._sweep.trials or 0)

    def finish(self, claimed: Claimed, goals: Sequence[float]) -> None:
        """Record the means of both goals, and let go of the trial."""
        self._study.tell(claimed.number, list(goals))
        self._release(claimed.number)

    def fail(self, claimed: Claimed, reason: str) -> None:
        """Record why a trial has no result, and let go of it."""
        from optuna.trial import TrialState

        self._write(claimed.number, {"reason": reason})
        self._study.tell(claimed.number, state=TrialState.FAIL)
        self._release(claimed.number)

    def let_go(self) -> None:
        """Leave what is claimed for others to take up."""
        for number in list(self._locks):
            self._release(number)

    def place(self, number: int) -> Path:
        """Return a trial's folder."""
        return self.folder / TRIALS / f"{number:04d}"

    def _write(self, number: int, record: Mapping[str, Any]) -> None:
        write_json(self.place(number) / OUTCOME, dict(record))

    def _lock(self, number: int) -> bool:
        """Whether the trial is this process's now: nobody else's, and not already its own."""
        from filelock import FileLock, Timeout

        if number in self._locks:
            return False
        place = self.place(number)
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        self._locks[number] = lock
        return True

    def _release(self, number: int) -> None:
        self._locks.pop(number).release()

    # -- all trials -------------------------------------------------------------------------------

    def trials(self) -> list[Trial]:
        """Return all trials so far; one that was lost before it was drawn is none."""
        return [
            self._trial(frozen, configuration)
            for frozen in self._study.get_trials(deepcopy=False)
            if (configuration := self._space.read(frozen.params)) is not None
        ]

    def _trial(self, frozen: FrozenTrial, configuration: Configuration) -> Trial:
        from optuna.trial import TrialState

        states: dict[Any, State] = {
            TrialState.WAITING: "waiting",
            TrialState.RUNNING: "running",
            TrialState.COMPLETE: "finished",
        }
        state: State = states.get(frozen.state, "failed")
        file = self.place(frozen.number) / OUTCOME
        record = read_record(file, dict) if file.is_file() else {}
        note = str(record.get("reason", ""))
        if "repeats" in record:
            state, note = "repeated", f"as trial {record['repeats']}"
        goals = tuple(frozen.values) if frozen.state == TrialState.COMPLETE else None
        return Trial(
            number=frozen.number,
            configuration=configuration,
            state=state,
            goals=goals,
            note=note,
        )

    def size(self) -> int:
        """Return how many trials there will be."""
        return self._space.size()


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise RecipeError(
            "a sweep needs the library optuna, which is not installed: pip install 'amnesis[sweep]'"
        ) from None
    optuna.logging.set_verbosity(logging.ERROR)
    return optuna


def _storage(choice: str, folder: Path) -> BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if choice == "journal":
        return JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    if choice == "sqlite":
        # Several processes write; a minute is longer than any of them takes.
        waiting = {"connect_args": {"timeout": 60}}
        return RDBStorage(f"sqlite:///{folder.resolve() / 'study.db'}", engine_kwargs=waiting)
    return RDBStorage(choice)


def _sampler(sweep: Sweep, number: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    seed = sweep.search_seed * 1_000_003 + number
    if sweep.search != "tpe":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():  # the liar is called experimental
        warnings.simplefilter("ignore")
        return TPESampler(seed=seed, constant_liar=True)  # others are at work at the same time


def _draw(trial: OptunaTrial, name: str, distribution: BaseDistribution) -> None:
    """Draw a parameter, or leave it as the trial has it already."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
        return
    draw = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    draw(name, distribution.low, distribution.high, log=distribution.log)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep the other processes of a sweep waiting: drawing a trial takes milliseconds."""
    from filelock import FileLock

    with FileLock(folder / LOCK):
        yield


def _check_same_sweep(sweep: Sweep, folder: Path) -> None:
    """Write the sweep into its folder, or refuse one that differs in more than ``trials``.

    Raises:
        OutputError: the folder holds another sweep, or something else.
    """
    file = folder / SWEEP
    if file.is_file():
        written = Sweep.parse(read_document(file), str(file))
        if _but_the_trials(written) != _but_the_trials(sweep):
            raise OutputError(
                f"{folder}: holds another sweep; go on with {file}, or name another --out"
            )
    elif any(path.name != LOCK for path in folder.iterdir()):
        raise OutputError(f"{folder}: is not empty, and holds no sweep; name another --out")
    write_text(file, sweep.to_yaml())


def _but_the_trials(sweep: Sweep) -> dict[str, Any]:
    return sweep.model_dump(mode="json", exclude={"trials"})
