"""Checkpoints: written completely before they replace others, and checked before they are read."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.contracts.weight import State
from amnesis.distributed.processes import barrier, from_first_rank, world
from amnesis.errors import DataError
from amnesis.storage import read_record, sync_folder

if TYPE_CHECKING:
    from torch import Tensor

    from amnesis.contracts.component import Component
    from amnesis.contracts.stream import StreamLoss
    from amnesis.discovery.resolve import Method
    from amnesis.training.settings import TrainingSettings

MARKER, TRAJECTORY = "complete.json", "trajectory.jsonl"
_PARTIAL, _DISCARDED = ".partial", ".discarded"  # not whole yet, and not whole any more
_STATE, _MEMORY = "amnesis.json", "combiner.safetensors"  # the files of a RunState
# What a resumed run may change: none of it has a part in the numbers.
_FREE = {"log_every", "save_every", "keep_checkpoints"}


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The state of a run that a checkpoint holds beside the Trainer's own files.

    Attributes:
        trajectory: the logged values of each step so far.
        notes: the notes on the run so far.
        probes: the state of the probe runner.
        limits_passed: for how many steps in a row each limit has been passed.
        data: the digest of the examples that the run draws from.
        model: the fingerprint of the model that the run began with.
        choices: what :func:`choices_of` returned of the run.
        processes: how many processes made the steps.
        memory: the combiner's state, by parameter name.
        terms: the states of each stream's terms and weights.
    """

    trajectory: list[dict[str, float]]
    notes: list[str]
    probes: dict[str, Any]
    limits_passed: dict[str, int]
    data: str
    model: str
    choices: Mapping[str, str]
    processes: int
    memory: Mapping[str, Tensor]
    terms: Mapping[str, Sequence[Mapping[str, State]]]

    def check(
        self,
        checkpoint: Path,
        data: str,
        model: str,
        choices: Mapping[str, str],
        *,
        sharded: bool = False,
    ) -> None:
        """Refuse to go on with what the run did not begin with.

        A ``sharded`` model may go on with another number of processes, which is what its
        checkpoints are for; sums over them then round otherwise.

        Raises:
            DataError: the rows, the model, the method, its settings or the number of processes are
                others.
        """
        changed = None
        others = [name for name, choice in choices.items() if self.choices.get(name) != choice]
        if self.data != data:
            changed = "over other rows: resume with the data (and template) that it began with"
        elif self.model != model:
            changed = "of another model: resume with the model that it began with"
        elif self.processes != world()[1] and not sharded:
            changed = (
                f"on {self.processes} processes, not {world()[1]}: sums over them would round "
                f"otherwise; resume on as many"
            )
        elif others:
            began, now = self.choices.get(others[0], "none"), choices[others[0]]
            changed = f"with {others[0]} {began}, not {now}: resume with what it began with"
        if changed is not None:
            raise DataError(
                f"{checkpoint}: was written by a run {changed}, or start anew in another folder"
            )

    def write(self, folder: Path, log: TrajectoryFile) -> None:
        """Write the state into the folder of a :func:`staged` checkpoint, and what is new to log.

        ``log`` holds the trajectory; the checkpoint says how much of it is its own.
        """
        from safetensors.torch import save_file

        document = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "memory"}
        document["trajectory"] = log.append(self.trajectory)
        (folder / _STATE).write_text(json.dumps(document), encoding="utf-8")
        if self.memory:
            tensors = {name: tensor.contiguous() for name, tensor in self.memory.items()}
            save_file(tensors, folder / _MEMORY)

    @classmethod
    def read(cls, folder: Path, log: TrajectoryFile) -> RunState:
        """Return the state that :meth:`write` wrote into ``folder``, and its part of ``log``.

        Raises:
            DataError: it is not what this version writes.
        """
        from safetensors.torch import load_file

        file = folder / _MEMORY
        memory = load_file(file) if file.is_file() else {}

        def build(document: dict[str, Any]) -> RunState:
            trajectory, notes = log.read(**document.pop("trajectory"))
            document["notes"] = [*document["notes"], *notes]
            return cls(**document, trajectory=trajectory, memory=memory)

        return read_record(folder / _STATE, build)


class TrajectoryFile:
    """The logged values of a run's steps, a line for each: appended, however often it is written.

    All checkpoints of a run share it, each with the number of bytes that were its own. What a run
    that was killed wrote beyond its last checkpoint is overwritten.
    """

    def __init__(self, path: Path) -> None:
        """Take where the file is, or will be."""
        self._path = path
        self._lines = self._size = 0
        self._digest = _new_digest()

    def append(self, trajectory: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        """Write the steps that are not in the file yet; return how much of it they make."""
        lines = [json.dumps(values) + "\n" for values in trajectory[self._lines :]]
        content = "".join(lines).encode()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("r+b" if self._path.exists() else "w+b") as file:
            file.truncate(self._size)
            file.seek(self._size)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._lines += len(lines)
        self._size += len(content)
        self._digest.update(content)
        return {"size": self._size, "digest": self._digest.hexdigest()}

    def read(self, size: int, digest: str) -> tuple[list[dict[str, float]], list[str]]:
        """Return the steps in the file's first bytes, and a note where they are damaged and lost.

        Values of a run's past have no part in its future: it goes on without them.
        """
        try:
            with self._path.open("rb") as file:
                content = file.read(size)
        except OSError:
            content = b""
        self._digest = _new_digest()
        self._digest.update(content)
        if self._digest.hexdigest() != digest:
            self._digest, self._lines, self._size = _new_digest(), 0, 0
            return [], [f"{self._path}: is damaged: the values of the steps so far are lost"]
        trajectory = [json.loads(line) for line in content.splitlines()]
        self._lines, self._size = len(trajectory), size
        return trajectory, []


def choices_of(method: Method, training: TrainingSettings, seed: int) -> dict[str, str]:
    """Return all that decides a run's numbers beside its data and model, by name, as text."""
    settings = training.model_dump(mode="json", exclude=_FREE)
    return {
        "objective": _stream_text(method.forget),
        "regularizer": _stream_text(method.retain),
        "combiner": _text_of(method.combiner),
        "perturbation": _text_of(method.perturbation),
        "probes": ", ".join(map(_text_of, method.probes)) or "none",
        "seed": str(seed),
        **{f"training.{name}": str(value) for name, value in settings.items()},
    }


def _stream_text(loss: StreamLoss | None) -> str:
    terms = () if loss is None else loss.terms
    weights = (t.weight if t.schedule is None else t.schedule for t in terms)
    rules = (weight if t.rule is None else t.rule for t, weight in zip(terms, weights, strict=True))
    texts = (f"{rule!r} * {_text_of(t.term)}" for t, rule in zip(terms, rules, strict=True))
    return " + ".join(texts) or "none"


def _text_of(component: Component | None) -> str:
    """Return a component's class and hyper-parameters, without where in memory any of it is."""
    if component is None:
        return "none"
    return f"{type(component).__module__}.{re.sub(r' at 0x[0-9a-f]+', '', repr(component))}"


@contextmanager
def staged(folder: Path, step: int, keep: int) -> Iterator[Path]:
    """Yield a folder for the files of checkpoint ``step``, moved into ``folder`` when complete.

    Every rank must enter, and writes its own files. Afterwards the first rank adds a list of the
    files and their digests, and deletes all but the last ``keep`` checkpoints.
    """
    staging = folder / f"{step:08d}{_PARTIAL}"
    if world()[0] == 0:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
    barrier()
    yield staging
    barrier()
    if world()[0] == 0:
        _seal(staging, step)
        target = folder / f"{step:08d}"
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
        sync_folder(folder)
        _discard(_numbered(folder), keep)
    barrier()


def take_up(folder: Path, keep: int) -> tuple[Path | None, list[str]]:
    """Return :func:`latest` on every rank.

    What a run that was killed left unfinished is deleted, and of the checkpoints before the latest
    all but the last that make it ``keep``.
    """

    def find_and_clear() -> tuple[Path | None, list[str]]:
        newest, notes = latest(folder)
        for suffix in (_PARTIAL, _DISCARDED):
            for path in folder.glob(f"*{suffix}"):
                shutil.rmtree(path, ignore_errors=True)
        if newest is not None:
            _discard([path for path in _numbered(folder) if path.name <= newest.name], keep)
        return newest, notes

    return from_first_rank(find_and_clear)


def latest(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest undamaged checkpoint or None, and a note on each that was passed over."""
    notes: list[str] = []
    if not folder.is_dir():
        return None, notes
    for partial in sorted(folder.glob(f"*{_PARTIAL}")):
        notes.append(f"checkpoint {partial.name} was not finished: passed over")
    for candidate in sorted(_numbered(folder), reverse=True):
        damage = _damage(candidate)
        if damage is None:
            return candidate, notes
        notes.append(f"checkpoint {candidate.name} is damaged ({damage}): passed over")
    return None, notes


def _discard(checkpoints: list[Path], keep: int) -> None:
    """Delete all but the last ``keep`` of these checkpoints."""
    for old in sorted(checkpoints)[:-keep]:
        # By another name first: what is deleted in part must not be taken for a checkpoint.
        shutil.rmtree(old.rename(f"{old}{_DISCARDED}"), ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """Return the number of optimizer steps before a checkpoint was written."""
    return int(checkpoint.name)


def trainer_folder(checkpoint: Path) -> Path:
    """Return the checkpoint's folder that the Trainer reads; it holds the run's state too."""
    return checkpoint / f"checkpoint-{step_of(checkpoint)}"


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()]


def digests(folder: Path) -> dict[str, str]:
    """Return a digest of each file in a folder, except a checkpoint's list of files itself."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MARKER:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, _new_digest)
            found[str(path.relative_to(folder))] = digest.hexdigest()
    return found


def _new_digest() -> Any:
    return hashlib.blake2b(digest_size=16)


def _seal(staging: Path, step: int) -> None:
    for path in staging.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    marker = staging / MARKER
    with marker.open("w", encoding="utf-8") as file:
        json.dump({"step": step, "files": digests(staging)}, file)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(staging)


def _damage(checkpoint: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None where all its files are as written."""
    try:
        files = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))["files"].items()
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"{MARKER} is missing or unreadable"
    found = digests(checkpoint)
    for name, digest in files:
        if name not in found:
            return f"{name} is missing"
        if found[name] != digest:
            return f"{name} is not what was written"
    return None
