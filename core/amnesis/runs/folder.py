"""A run's folder: free or resumed, written whole or not at all, never over what is not ours."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from amnesis.distributed.processes import barrier, from_first_rank, join
from amnesis.errors import OutputError
from amnesis.runs.results import EXAMPLES, RESULTS, Results, RunResult, environment, write_examples
from amnesis.storage import write_model, write_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.contracts.benchmark import Evaluation
    from amnesis.runs.recipe import BaseRecipe
    from amnesis.runs.results import Phase

# All that a run writes into its folder, and all that --overwrite replaces.
NAMES = (
    "recipe.yaml",
    RESULTS,
    EXAMPLES,
    "model",
    "tensorboard",
    "report.html",
    "checkpoints",
)


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The folder of a run or a finetuning, from the first look at it to the results in it."""

    path: Path
    resume: bool
    overwrite: bool
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def choose(
        cls, out: Path | str | None, what: str, *, resume: bool, overwrite: bool, device: str | None
    ) -> Self:
        """Return the folder ``out``, or a new ``runs/<what>-<time>``; nothing is changed.

        Raises:
            OutputError: it is taken, and the run neither resumes nor may overwrite.
        """
        join(device)
        path = Path(out) if out is not None else from_first_rank(lambda: new_folder(what))
        if not resume:
            from_first_rank(lambda: check_free(path, overwrite=overwrite))
        return cls(path=path, resume=resume, overwrite=overwrite)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are, and what else a resumed run takes up."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Where TensorBoard's events are."""
        return self.path / "tensorboard"

    def begin(self, recipe: BaseRecipe) -> RunResult | None:
        """Claim the folder, or go on with the run there; return its results if it is done.

        Raises:
            OutputError: the folder is taken, or holds a run of another recipe.
        """
        return from_first_rank(lambda: self._begin(recipe))

    def _begin(self, recipe: BaseRecipe) -> RunResult | None:
        written = self.path / "recipe.yaml"
        if not (self.resume and written.is_file()):
            claim(self.path, overwrite=self.overwrite)
            write_text(written, recipe.to_yaml())
            return None
        if written.read_text(encoding="utf-8") != recipe.to_yaml():
            raise OutputError(
                f"{self.path}: holds a run of another recipe; resume it with {written}, or name "
                f"another --out"
            )
        clear_scratch(self.path)
        if not (self.path / RESULTS).is_file():
            return None
        return RunResult(self.path, Results.read(self.path))

    def finish(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        device: str,
        results: Results,
        evaluations: Mapping[Phase, Evaluation] | None = None,
    ) -> RunResult:
        """Write model, examples and, last, the results, with how long it took and on what."""
        write_model(self.path / "model", model, tokenizer)
        write_examples(self.path, evaluations or {})
        seconds = round(time.monotonic() - self.started, 2)
        whole = results.model_copy(update={"seconds": seconds, "environment": environment(device)})
        whole.write(self.path)
        barrier()  # no rank reads, or leaves, before everything is there
        return RunResult(self.path, whole)


def claim(folder: Path, *, overwrite: bool = False) -> Path:
    """Make ``folder`` ready to hold a run.

    Raises:
        OutputError: it holds something, and ``overwrite`` was not asked for; or cannot be made.
    """
    check_free(folder, overwrite=overwrite)
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


def check_free(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that may not hold a new run; nothing is changed.

    Raises:
        OutputError: it is a file, or holds something and ``overwrite`` was not asked for.
    """
    check_empty(
        folder,
        f"name another folder, or say --resume to go on with a run that was cut off, or "
        f"--overwrite to replace a run's own files ({', '.join(NAMES)})",
        overwrite=overwrite,
    )


def check_empty(folder: Path, advice: str, *, overwrite: bool) -> None:
    """Refuse a folder that is no place for results: neither new, nor empty, nor to be overwritten.

    Raises:
        OutputError: it is not; ``advice`` is what to do about a folder that is not empty.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, not a folder; name another --out")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise OutputError(f"{folder}: is not empty; {advice}")


def clear_scratch(folder: Path) -> None:
    """Remove what a run that was killed had begun to write there."""
    for name in (*NAMES, "before.json"):
        for scratch in folder.rglob(f".{name}.*"):
            shutil.rmtree(scratch, ignore_errors=True)


def new_folder(what: str) -> Path:
    """Return the name ``runs/<what>-<time>`` of a folder that is not there yet."""
    stem = f"runs/{what}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = [Path(stem), *(Path(f"{stem}-{k}") for k in range(2, 1000))]
    return next(path for path in candidates if not path.exists())
