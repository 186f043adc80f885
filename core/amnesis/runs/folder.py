"""A run's folder: one owner while a run lives, and never written over what is not ours."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.distributed.processes import barrier, check_same, from_first_rank, join, world
from amnesis.errors import DataError, Interrupted, OutputError
from amnesis.runs.answers import ANSWERS, REPORT, forget_phases, write_answers
from amnesis.runs.reporting import reported
from amnesis.runs.results import EXAMPLES, RESULTS, Results, RunResult, environment, write_examples
from amnesis.storage import (
    clear_scratch,
    is_scratch,
    read_record,
    write_json,
    write_model,
    write_text,
)
from amnesis.training.checkpoints import digests
from amnesis.training.unlearner import FitResult

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.contracts.benchmark import Evaluation
    from amnesis.data.templates import AnyTemplate
    from amnesis.discovery.registry import Registry
    from amnesis.runs.recipe import BaseRecipe
    from amnesis.runs.results import Phase

MODEL_CARD = "README.md"  # in the model's folder
LOCK, FITTED = ".lock", "fitted.json"
# All that a run writes into its folder, and all that --overwrite replaces.
NAMES = (
    "recipe.yaml",
    RESULTS,
    EXAMPLES,
    ANSWERS,
    "model",
    "tensorboard",
    REPORT,
    "checkpoints",
)


@dataclass(kw_only=True)
class RunFolder:
    """The folder of a run or a finetuning, from the first look at it to the results in it.

    ``disposable`` says that all of a run in it is this one's beginning: a run that fails before its
    first step leaves nothing in the way of the corrected one. ``command`` is the command line.
    """

    path: Path
    resume: bool
    overwrite: bool
    disposable: bool = False
    command: str | None = None
    started: float = field(default_factory=time.monotonic)

    @classmethod
    @contextmanager
    def own(
        cls, out: Path | str | None, what: str, *, resume: bool, overwrite: bool, device: str | None
    ) -> Iterator[RunFolder]:
        """Own the folder ``out``, or a new ``runs/<what>-<time>``, while the run lives.

        Raises:
            OutputError: another run owns it, it is taken and this one neither resumes nor may
                overwrite, or this one is to do both.
        """
        check_one_of(resume=resume, overwrite=overwrite)
        join(device)
        owner = _Owner()
        path = from_first_rank(
            lambda: owner.enter(None if out is None else Path(out), what, resume, overwrite)
        )
        folder = cls(path=path, resume=resume, overwrite=overwrite)
        try:
            yield folder
        except Interrupted as interrupted:
            interrupted.folder = path
            raise
        except Exception:
            if folder.disposable and world()[0] == 0:  # no rank waits for one that failed
                remove_run(path)
            owner.remove_traces()
            raise
        finally:
            owner.leave()

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are, and what else a resumed run takes up."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Where TensorBoard's events are."""
        return self.path / "tensorboard"

    @property
    def model(self) -> Path:
        """Where the model is once it is trained."""
        return self.path / "model"

    def begin(self, recipe: BaseRecipe) -> RunResult | None:
        """Claim the folder, or go on with the run there; return its results if it is done.

        Raises:
            OutputError: the folder is taken, holds what the recipe reads, or a run of another
                recipe.
            DataError: the processes of this run have different recipes.
        """
        check_same("the recipe", recipe.to_yaml())
        resumes = from_first_rank(lambda: self._resumes(recipe))
        if not resumes:
            self.disposable = True
            from_first_rank(lambda: self._claim(recipe))
            return None
        if not (self.path / RESULTS).is_file():
            return None
        forget_phases(self.checkpoints)  # which one that was killed at its very end had still to do
        return RunResult(self.path, Results.read(self.path))

    def _resumes(self, recipe: BaseRecipe) -> bool:
        """Whether there is a run to go on with; nothing of the folder is changed."""
        written = self.path / "recipe.yaml"
        if not (self.resume and written.is_file()):
            check_free(self.path, overwrite=self.overwrite)
            check_inputs(self.path, recipe)
            return False
        if written.read_text(encoding="utf-8") != recipe.to_yaml():
            raise OutputError(
                f"{self.path}: holds a run of another recipe; resume it with {written}, or name "
                f"another --out"
            )
        clear_scratch(self.path, self.checkpoints)
        return True

    def _claim(self, recipe: BaseRecipe) -> None:
        clear_scratch(self.path, self.checkpoints)
        remove_run(self.path)
        write_text(self.path / "recipe.yaml", recipe.to_yaml())

    def keep(self) -> None:
        """Keep what is in the folder from here on, whatever happens."""
        self.disposable = False

    def write_fitted(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        fitted: FitResult,
        rows: str,
        template: AnyTemplate | None = None,
    ) -> None:
        """Write the trained model and what training went through, before anything else can fail.

        ``rows`` is a digest of what it was trained on, ``template`` how its prompts are made.
        """
        card = None if template is None else {"template": template.model_dump(mode="json")}
        write_model(self.model, model, tokenizer, card)
        if world()[0] == 0:
            record = {**asdict(fitted), "rows": rows, "files": digests(self.model)}
            write_json(self.checkpoints / FITTED, record)

    def weights_digest(self) -> str:
        """Return the SHA-256 of the file with the model's weights.

        Of several files it is that of the lines that ``sha256sum *.safetensors`` prints.
        """
        return from_first_rank(lambda: _sha256(sorted(self.model.glob("*.safetensors"))))

    def read_fitted(self, rows: str) -> FitResult | None:
        """Return what training went through, if it came to its end before the run was cut off.

        Raises:
            DataError: it was trained on other rows, the model or the record of it is damaged, or
                the processes of this run have different rows.
        """
        check_same("the data of this run", rows)
        file = self.checkpoints / FITTED
        if not (self.resume and file.is_file() and self.model.is_dir()):
            return None
        trained_on, files, fitted = read_record(
            file,
            lambda record: (record.pop("rows"), record.pop("files"), FitResult(**record)),
        )
        if trained_on != rows:
            raise DataError(
                f"{self.path}: was trained on other rows: resume with the data that it began "
                f"with, or start anew in another folder"
            )
        written = digests(self.model)
        written.pop(MODEL_CARD, None)  # the last that a run writes, and for its owner to rewrite
        if written != files:
            raise DataError(
                f"{self.model}: is not what the run wrote; delete {file}, and --resume trains it "
                f"again from the last checkpoint"
            )
        return fitted

    def finish(
        self,
        device: str,
        results: Results,
        evaluations: Mapping[Phase, Evaluation] | None = None,
        registry: Registry | None = None,
    ) -> RunResult:
        """Write the examples and, last, the results, with how long it took and on what.

        The reports of ``registry`` are told of the run before, and add their verdict.
        """
        evaluations = evaluations or {}
        write_examples(self.path, evaluations)
        write_answers(self.path, {phase: one.answers for phase, one in evaluations.items()})
        whole = results.model_copy(
            update={
                "seconds": round(time.monotonic() - self.started, 2),
                "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
                "environment": {**environment(device), **results.environment},
                **({} if self.command is None else {"command": self.command}),
            }
        )
        if registry is not None:
            whole = reported(self.path, whole, registry)
        whole.write(self.path)
        forget_phases(self.checkpoints)  # they are whole in one place now
        barrier()  # no rank reads, or leaves, before everything is there
        return RunResult(self.path, whole)


class _Owner:
    """The lock on a run's folder, held by the first process alone while the run lives."""

    def __init__(self) -> None:
        self._lock: BaseFileLock | None = None
        self._path = Path()
        self._new = False

    def enter(self, out: Path | None, what: str, resume: bool, overwrite: bool) -> Path:
        """Make the folder where there is none, lock it, and check that it may hold this run."""
        if out is None:
            self._path, self._new = make_new_folder(what), True
        else:
            self._path, self._new = out, not out.exists()
            _make(out)
        try:
            self._acquire()
            if not resume:
                check_free(self._path, overwrite=overwrite)
        except BaseException:
            self.leave()
            raise
        return self._path

    def _acquire(self) -> None:
        from filelock import FileLock, Timeout

        lock = FileLock(self._path / LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise OutputError(
                f"{self._path}: another run is at work here{_owner_in(self._path / LOCK)}; wait "
                f"for it, or name another --out"
            ) from None
        self._lock = lock
        (self._path / LOCK).write_text(f"{os.getpid()} {socket.gethostname()}\n", encoding="utf-8")

    def remove_traces(self) -> None:
        """Leave no lock in a folder that holds nothing else, and no folder where there was none."""
        if self._lock is None:
            return
        clear_scratch(self._path)
        if not any(path.name != LOCK for path in self._path.iterdir()):
            (self._path / LOCK).unlink(missing_ok=True)
            if self._new:
                self._path.rmdir()

    def leave(self) -> None:
        """Let another run in."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def claim(folder: Path, *, overwrite: bool = False) -> Path:
    """Make a folder ready to hold runs: make it, or delete what an earlier run left in it.

    Raises:
        OutputError: it holds something, and ``overwrite`` was not asked for; or cannot be made.
    """
    check_free(folder, overwrite=overwrite)
    _make(folder)
    remove_run(folder)
    return folder


def check_one_of(*, resume: bool, overwrite: bool) -> None:
    """Refuse what would both go on with a folder's run and replace it.

    Raises:
        OutputError: both are asked for.
    """
    if resume and overwrite:
        raise OutputError(
            "resume goes on with what a folder holds, and overwrite replaces it: leave one out"
        )


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
    if not folder.is_dir() or overwrite:
        return
    if any(path.name != LOCK and not is_scratch(path) for path in folder.iterdir()):
        raise OutputError(f"{folder}: is not empty; {advice}")


def check_inputs(folder: Path, recipe: BaseRecipe) -> None:
    """Refuse to replace what the run itself reads: a model, data or results of an earlier run.

    Raises:
        OutputError: a path in the recipe lies in what the run would delete first.
    """
    ours = [(folder / name).resolve() for name in NAMES]
    for text in _texts(recipe.model_dump(mode="json")):
        try:
            path = Path(text).resolve()
            inside = path.exists() and any(path.is_relative_to(place) for place in ours)
        except (OSError, ValueError):  # not a path that there could be
            continue
        if inside:
            raise OutputError(
                f"{text}: is read by this run, and --overwrite would delete it with what "
                f"{folder} holds; name another --out"
            )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def remove_run(folder: Path) -> None:
    """Delete what an earlier run wrote into a folder, and nothing else."""
    for name in NAMES:
        target = folder / name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def make_new_folder(what: str) -> Path:
    """Make and return a folder ``runs/<what>-<time>`` that was not there, whoever else does so."""
    stem = f"runs/{what}-{time.strftime('%Y%m%d-%H%M%S')}"
    for path in (Path(stem), *(Path(f"{stem}-{k}") for k in range(2, 1000))):
        try:
            path.mkdir(parents=True, exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(f"{path}: cannot be made: {error.strerror}") from error
        return path
    raise OutputError(f"{stem}: a thousand folders of this name are there; name another --out")


def _make(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, not a folder; name another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error


def _sha256(files: Sequence[Path]) -> str:
    digests_of = {}
    for path in files:
        with path.open("rb") as file:
            digests_of[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    if len(digests_of) == 1:
        return next(iter(digests_of.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests_of.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def _owner_in(lock: Path) -> str:
    try:
        process, host = lock.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return ""
    return f" (process {process} on {host})"
