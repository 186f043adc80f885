"""Atomic writing: a file or folder appears whole or not at all, and on the first rank only."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from amnesis.distributed.processes import first_rank_only
from amnesis.distributed.shards import gathered
from amnesis.errors import DataError, OutputError, first_line

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


T = TypeVar("T")
CARD = "amnesis.json"  # in a model's folder
_SCRATCH = ".amnesis-"  # what tells our unfinished files from anybody else's hidden ones


def is_scratch(path: Path) -> bool:
    """Whether a path is what an interrupted write of ours left."""
    return path.name.startswith(".") and _SCRATCH in path.name


def clear_scratch(*folders: Path) -> None:
    """Delete what interrupted writes of ours left in these folders, and nothing still written."""
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if is_scratch(path):
                with suppress(OSError):  # in use, or deleted meanwhile
                    owner = _lock(path, fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
                    os.close(owner)


def _lock(folder: Path, option: int = 0) -> int:
    """Return a descriptor that holds the lock on a folder: until it is closed, or the process dies.

    Raises:
        OSError: somebody else holds it (with ``LOCK_NB``), or there is no such folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | option)
    except OSError:
        if option:
            os.close(descriptor)
            raise  # where a file system knows no locks, too: nobody can tell there what is in use
    return descriptor


@first_rank_only
def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text; after a crash the path holds the old file or the whole new one.

    Raises:
        OutputError: the file cannot be written; the old one is unchanged.
    """
    with _atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@first_rank_only
def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically.

    Raises:
        OutputError: the file cannot be written.
        ValueError: a number in ``value`` is not finite.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_record(path: Path, build: Callable[[dict[str, Any]], T]) -> T:
    """Return what ``build`` makes of the JSON object in a file that an earlier run wrote.

    Raises:
        DataError: the file is damaged, or another version's.
    """
    try:
        return build(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path}: is damaged, or of another version of amnesis ({first_line(error)}); delete "
            f"it, and what it holds is made anew"
        ) from error


@first_rank_only
def write_table(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records that share their keys as Parquet rows, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _atomic(path) as temporary:
        pq.write_table(pa.Table.from_pylist([dict(record) for record in records]), temporary)


@first_rank_only
def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors as safetensors, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save_file

    with _atomic(path) as temporary:
        save_file(dict(tensors), temporary, metadata=metadata)


def write_model(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    card: Mapping[str, Any] | None = None,
) -> None:
    """Write a model (safetensors) and its tokenizer into a folder, atomically.

    ``card`` is written beside them as :data:`CARD`: what a reader needs to use the model as it was
    trained, such as its template. A sharded model is gathered, for which every rank must call this.

    Raises:
        OutputError: the folder cannot be written; the old one is unchanged.
    """
    _write_model(folder, model, tokenizer, card, gathered(model))


@first_rank_only
def _write_model(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    card: Mapping[str, Any] | None,
    tensors: Mapping[str, Tensor] | None,
) -> None:
    with _atomic(folder) as temporary:
        temporary.mkdir()
        model.save_pretrained(temporary, state_dict=tensors)
        tokenizer.save_pretrained(temporary)
        (temporary / "README.md").unlink(missing_ok=True)  # peft's form, of which nothing is filled
        if card is not None:
            text = json.dumps(card, indent=1, ensure_ascii=False)
            (temporary / CARD).write_text(f"{text}\n", encoding="utf-8")
        for file in temporary.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


@contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path on the same file system, renamed to ``path`` if the body succeeds."""
    from safetensors import SafetensorError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_scratch(path.parent)
        with _scratch_for(path) as scratch:
            temporary = scratch / path.name
            yield temporary
            if temporary.is_file():
                temporary.chmod(0o600)  # texts and scores of what is to be forgotten are private
            if path.is_dir() and not path.is_symlink():
                path.rename(scratch / "replaced")
            temporary.replace(path)
            sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise OutputError(
            f"{path}: cannot be written: {reason}; what was there before is unchanged"
        ) from error


@contextmanager
def _scratch_for(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` that is ours until it is deleted at the end."""
    while True:
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}{_SCRATCH}"))
        with suppress(FileNotFoundError):
            owner = _lock(scratch)
            if scratch.is_dir():
                break
            os.close(owner)  # cleared by another before it was locked
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(owner)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that renames inside it survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
