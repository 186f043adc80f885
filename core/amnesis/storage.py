"""Atomic writing: a file or folder appears whole or not at all, and on the first rank only."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.distributed.processes import first_rank_only
from amnesis.errors import OutputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_SCRATCH = ".amnesis-"  # what tells our unfinished files from anybody else's hidden ones


def is_scratch(path: Path) -> bool:
    """Whether a path is what an interrupted write of ours left."""
    return path.name.startswith(".") and _SCRATCH in path.name


def clear_scratch(*folders: Path) -> None:
    """Delete what interrupted writes of ours left in these folders; nobody may be writing there."""
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() else ():
            if is_scratch(path):
                shutil.rmtree(path, ignore_errors=True)


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
def write_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a model (safetensors) and its tokenizer into a folder, atomically.

    Raises:
        OutputError: the folder cannot be written; the old one is unchanged.
    """
    with _atomic(folder) as temporary:
        temporary.mkdir()
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for file in temporary.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


@contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path on the same file system, renamed to ``path`` if the body succeeds."""
    scratch: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}{_SCRATCH}"))
        temporary = scratch / path.name
        yield temporary
        if temporary.is_file():
            temporary.chmod(0o600)  # texts and scores of what is to be forgotten are private
        if path.is_dir() and not path.is_symlink():
            path.rename(scratch / "replaced")
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}; what was there before is "
            f"unchanged"
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that renames inside it survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
