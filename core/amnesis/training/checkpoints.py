"""Checkpoints: what of them is ours; written whole beside the old ones, recognised when not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.distributed.processes import barrier, world
from amnesis.storage import sync_folder

if TYPE_CHECKING:
    from torch import Tensor

MARKER = "complete.json"
_PARTIAL = ".partial"
_STATE, _MEMORY = "amnesis.json", "combiner.safetensors"


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a checkpoint holds beside the Trainer's own files.

    Attributes:
        trajectory: the logged values of each step so far.
        notes: what was said beside them.
        probes: the probe runner's state.
        limits_passed: for how many steps each limit has been passed.
        data: the digest of the examples that the run draws from.
        memory: what the combiner remembers, by parameter name.
    """

    trajectory: list[dict[str, float]]
    notes: list[str]
    probes: dict[str, Any]
    limits_passed: dict[str, int]
    data: str
    memory: Mapping[str, Tensor]

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint that is being staged."""
        from safetensors.torch import save_file

        document = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "memory"}
        (folder / _STATE).write_text(json.dumps(document), encoding="utf-8")
        if self.memory:
            tensors = {name: tensor.contiguous() for name, tensor in self.memory.items()}
            save_file(tensors, folder / _MEMORY)

    @classmethod
    def read(cls, folder: Path) -> RunState:
        """Read what :meth:`write` wrote."""
        from safetensors.torch import load_file

        document = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        memory = folder / _MEMORY
        return cls(**document, memory=load_file(memory) if memory.is_file() else {})


@contextmanager
def staged(folder: Path, step: int, keep: int) -> Iterator[Path]:
    """Yield a folder to write checkpoint ``step`` into; it appears in ``folder`` when it is whole.

    Every rank enters and writes its own files; the first one seals. The last ``keep`` checkpoints
    stay.
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
        for old in sorted(_numbered(folder))[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    barrier()


def latest(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest whole checkpoint, and a note for each newer one that was passed over."""
    notes: list[str] = []
    if not folder.is_dir():
        return None, notes
    for partial in sorted(folder.glob(f"*{_PARTIAL}")):
        notes.append(f"checkpoint {partial.name} was not finished: passed over")
    for candidate in sorted(_numbered(folder), reverse=True):
        fault = _fault(candidate)
        if fault is None:
            return candidate, notes
        notes.append(f"checkpoint {candidate.name} is damaged ({fault}): passed over")
    return None, notes


def step_of(checkpoint: Path) -> int:
    """Return the number of optimizer steps that were done when it was written."""
    return int(checkpoint.name)


def trainer_folder(checkpoint: Path) -> Path:
    """Return the folder in it that the Trainer wrote and reads, which holds our state too."""
    return checkpoint / f"checkpoint-{step_of(checkpoint)}"


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()]


def _files(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARKER
    }


def _seal(staging: Path, step: int) -> None:
    for path in staging.rglob("*"):
        if path.is_file():
            with path.open("rb") as written:
                os.fsync(written.fileno())
    marker = staging / MARKER
    with marker.open("w", encoding="utf-8") as file:
        json.dump({"step": step, "files": _files(staging)}, file)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(staging)


def _fault(checkpoint: Path) -> str | None:
    try:
        sealed: dict[str, Any] = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{MARKER} is missing or unreadable"
    found = _files(checkpoint)
    for name, size in sealed.get("files", {}).items():
        if found.get(name) != size:
            return f"{name} has {found.get(name, 0)} of {size} bytes"
    return None
