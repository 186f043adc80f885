"""What a run leaves behind: written whole or not at all, and never over what is not ours."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.distributed import first_rank_only
from amnesis.errors import OutputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# All that a run writes into its folder, and all that --overwrite replaces.
NAMES = (
    "recipe.yaml",
    "results.json",
    "examples.parquet",
    "model",
    "tensorboard",
    "report.html",
    "checkpoints",
)


def claim(folder: Path, *, overwrite: bool = False) -> Path:
    """Make ``folder`` ready to hold a run.

    Raises:
        OutputError: it holds something, and ``overwrite`` was not asked for; or cannot be made.
    """
    refuse_if_taken(folder, overwrite=overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
    for name in NAMES:
        target = folder / name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        elif target.exists() or target.is_symlink():
            target.unlink()
    return folder


def refuse_if_taken(folder: Path, *, overwrite: bool = False) -> None:
    """See whether ``folder`` may hold a new run; nothing is changed.

    Raises:
        OutputError: it is a file, or holds something and ``overwrite`` was not asked for.
    """
    refuse_if_full(
        folder,
        f"name another folder, or say --resume to go on with a run that was cut off, or "
        f"--overwrite to replace a run's own files ({', '.join(NAMES)})",
        overwrite=overwrite,
    )


def refuse_if_full(folder: Path, advice: str, *, overwrite: bool) -> None:
    """See that ``folder`` is a place for results: none yet, empty, or asked to be overwritten.

    Raises:
        OutputError: it is not; ``advice`` is what to do about a folder that is not empty.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, not a folder; name another --out")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise OutputError(f"{folder}: is not empty; {advice}")


def tidy(folder: Path) -> None:
    """Remove what a run that was killed had begun to write there."""
    for name in (*NAMES, "before.json"):
        for scratch in folder.rglob(f".{name}.*"):
            shutil.rmtree(scratch, ignore_errors=True)


@first_rank_only
def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the whole new one, even after a crash."""
    with _beside(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@first_rank_only
def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically. Numbers that are not finite are refused."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@first_rank_only
def write_table(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records of one shape as Parquet, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _beside(path) as temporary:
        pq.write_table(pa.Table.from_pylist([dict(record) for record in records]), temporary)


@first_rank_only
def write_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a model's safetensors and its tokenizer as a folder that appears whole."""
    with _beside(folder) as temporary:
        temporary.mkdir()
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for file in temporary.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a temporary path in a folder beside ``path``, renamed to it if all went well."""
    scratch: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        temporary = scratch / path.name
        yield temporary
        if path.is_dir() and not path.is_symlink():
            path.rename(scratch / "replaced")
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written: {error.strerror or error}; what was there before is "
            f"unchanged"
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
