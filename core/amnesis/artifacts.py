"""What a run leaves behind: written whole or not at all, and never over what is not ours."""

from __future__ import annotations

import shutil
from pathlib import Path

from amnesis.errors import OutputError

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
