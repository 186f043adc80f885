"""What a run leaves behind: written whole or not at all, and never over what is not ours."""

from __future__ import annotations

import json
import time
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TYPE_CHECKING
from amnesis.distributed.processes import barrier, from_first_rank, join
from amnesis.errors import OutputError
from amnesis.runs.evaluations import Judging
from amnesis.models.loading import load_model, load_tokenizer
from amnesis.models.trainable import merged, train_only, with_lora
from amnesis.runs.preflight import prepare
from amnesis.progress import ProgressCallback
from amnesis.runs.recipe import BaseRecipe, Recipe
from amnesis.storage import write_json, write_model, write_table, write_text
from amnesis.training.callbacks import StepProgress, TensorBoard
from amnesis.training.unlearner import Unlearner
from amnesis.runs.results import RunResult, SCHEMA, environment

if TYPE_CHECKING:
    from amnesis.discovery.registry import Registry

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


def begin(
    folder: Path, recipe: BaseRecipe, *, resume: bool, overwrite: bool
) -> dict[str, Any] | None:
    """Claim ``folder`` for a run, or go on with the one there; give its results if it is done.

    Raises:
        OutputError: the folder is taken, or holds a run of another recipe.
    """
    written = folder / "recipe.yaml"
    if not (resume and written.is_file()):
        claim(folder, overwrite=overwrite)
        write_text(written, recipe.to_yaml())
        return None
    if written.read_text(encoding="utf-8") != recipe.to_yaml():
        raise OutputError(
            f"{folder}: holds a run of another recipe; resume it with {written}, or name "
            f"another --out"
        )
    tidy(folder)
    results = folder / "results.json"
    if not results.is_file():
        return None
    finished: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    return finished


def new_folder(what: str) -> Path:
    """Name a folder ``runs/<what>-<time>`` that is not there yet."""
    stem = f"runs/{what}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = [Path(stem), *(Path(f"{stem}-{k}") for k in range(2, 1000))]
    return next(path for path in candidates if not path.exists())
