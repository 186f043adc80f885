"""A run from recipe to results: judge, unlearn, judge again, and write it all down."""

from __future__ import annotations

import json
import platform
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis import artifacts
from amnesis.adapters import merged, train_only, with_lora
from amnesis.distributed import barrier, from_first_rank, join, world
from amnesis.errors import Interrupted, OutputError
from amnesis.judging import Judging
from amnesis.models import load_model, load_tokenizer
from amnesis.preflight import prepare
from amnesis.recipe import BaseRecipe, Recipe
from amnesis.tracking import Progress, ProgressCallback, StepProgress, TensorBoard
from amnesis.unlearner import Unlearner

if TYPE_CHECKING:
    from amnesis.registry import Registry

SCHEMA = "amnesis.results/1"
LIBRARIES = ("amnesis", "torch", "transformers", "accelerate", "peft", "datasets", "lm-eval")


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, and what ``results.json`` there says."""

    folder: Path
    results: dict[str, Any]


def run(
    recipe: Recipe | Mapping[str, Any],
    out: Path | str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    trust_remote_code: bool = False,
    reference_cache: Path | None = None,
    progress: ProgressCallback | None = None,
    registry: Registry | None = None,
) -> RunResult:
    """Unlearn as ``recipe`` says and leave model, numbers and logs in ``out``.

    ``out`` defaults to a new ``runs/run-<time>`` in the working directory. ``resume`` goes on with
    a run in ``out`` that was cut off; its recipe must be the same.

    Raises:
        AmnesisError: anything about the input is wrong; all that can be known before a weight is
            loaded is said then, at once.
    """
    started = time.monotonic()
    if not isinstance(recipe, Recipe):
        recipe = Recipe.parse(recipe)
    join(device)
    folder = Path(out) if out is not None else from_first_rank(lambda: new_folder("run"))
    if not resume:
        from_first_rank(lambda: artifacts.refuse_if_taken(folder, overwrite=overwrite))
    prepared = prepare(
        recipe,
        device=device,
        out=folder,
        trust_remote_code=trust_remote_code,
        registry=registry,
    )
    tokenizer = load_tokenizer(recipe.model, trust_remote_code=trust_remote_code)
    finished = from_first_rank(lambda: begin(folder, recipe, resume=resume, overwrite=overwrite))
    if finished is not None:
        return RunResult(folder, finished)
    device, tell = prepared.device, progress or _silent
    judging = Judging(recipe, prepared.benchmark, tokenizer, folder / "checkpoints", tell)
    if recipe.retrained is not None and not judging.recall("retrained"):
        never_knew = load_model(
            recipe.retrained, device=device, trust_remote_code=trust_remote_code
        )
        judging.judge("retrained", never_knew)
        del never_knew
    model = load_model(recipe.model, device=device, trust_remote_code=trust_remote_code)
    if recipe.lora is not None:
        model = with_lora(model, recipe.lora)
    if recipe.trainable is not None:
        train_only(model, recipe.trainable)
    unlearner = Unlearner(
        model,
        tokenizer,
        recipe.objective,
        recipe.regularizer,
        recipe.combiner,
        recipe.probes,
        training=recipe.training,
        template=recipe.template,
        seed=recipe.seed,
        reference_cache=reference_cache,
        callbacks=[TensorBoard(folder / "tensorboard"), StepProgress(tell, "unlearning")],
        registry=registry,
        device=device,
        output=folder / "checkpoints",
        stop_when=recipe.stop_when,
        judge=judging.along,
        judge_every=recipe.evaluate.every,
    )
    if not judging.recall("before"):
        judging.judge("before", model, prepared.attacks)
    fitted = unlearner.fit(prepared.forget, prepared.retain, progress=tell, resume=resume)
    judging.judge("after", model, prepared.attacks)
    if recipe.lora is not None and recipe.lora.save == "merged":
        model = merged(model)
    artifacts.write_model(folder / "model", model, tokenizer)
    results = {
        "schema": SCHEMA,
        **judging.values(),
        "intervals": judging.intervals(),
        "trajectory": fitted.trajectory,
        "attacks": judging.attacks(),
        "lm_eval": judging.lm_eval(),
        "steps": fitted.steps,
        "seconds": round(time.monotonic() - started, 2),
        "data": fitted.data,
        "notes": [*fitted.notes, *judging.notes()],
        "environment": environment(device),
    }
    artifacts.write_table(folder / "examples.parquet", judging.records())
    artifacts.write_json(folder / "results.json", results)
    barrier()  # no rank reads, or leaves, before everything is there
    return RunResult(folder, results)


def begin(
    folder: Path, recipe: BaseRecipe, *, resume: bool, overwrite: bool
) -> dict[str, Any] | None:
    """Claim ``folder`` for a run, or go on with the one there; give its results if it is done.

    Raises:
        OutputError: the folder is taken, or holds a run of another recipe.
    """
    written = folder / "recipe.yaml"
    if not (resume and written.is_file()):
        artifacts.claim(folder, overwrite=overwrite)
        artifacts.write_text(written, recipe.to_yaml())
        return None
    if written.read_text(encoding="utf-8") != recipe.to_yaml():
        raise OutputError(
            f"{folder}: holds a run of another recipe; resume it with {written}, or name "
            f"another --out"
        )
    artifacts.tidy(folder)
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


def environment(device: str) -> dict[str, Any]:
    """Describe what a run ran on."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "threads": torch.get_num_threads(),
        **{library: version(library) for library in LIBRARIES},
    }


def run_command(
    recipe: Path,
    overrides: list[str],
    out: Path | None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    check: bool = False,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """What ``amnesis run`` does: run with progress, then show before and after."""
    from rich.console import Console

    quiet_libraries()
    loaded = Recipe.load(recipe, overrides)
    console = Console()
    if resume and out is None:
        raise OutputError("--resume needs --out, the folder of the run that was cut off")
    if check:
        if out is not None and not resume:
            artifacts.refuse_if_taken(out, overwrite=overwrite)
        prepared = prepare(loaded, device=device, out=out, trust_remote_code=trust_remote_code)
        for line in prepared.plan.lines():
            console.print(line)
        return
    join(device)
    folder = out or from_first_rank(lambda: new_folder("run"))
    words = ["run", str(recipe), *overrides, "--out", str(folder)]
    with Progress() as progress, saying_how_to_go_on(words):
        result = run(
            loaded,
            folder,
            resume=resume,
            overwrite=overwrite,
            device=device,
            trust_remote_code=trust_remote_code,
            reference_cache=cache_folder() / "reference",
            progress=progress,
        )
    if world()[0] != 0:
        return
    console.print(before_and_after(result.results))
    for note in [*data_notes(result.results["data"]), *result.results["notes"]]:
        console.print(f"note: {note}")
    console.print(
        f"{result.results['steps']} steps, {result.results['seconds']} s: {result.folder}"
    )


@contextmanager
def saying_how_to_go_on(words: Sequence[str]) -> Iterator[None]:
    """Add to an interruption the command line that goes on from there."""
    try:
        yield
    except Interrupted as interrupted:
        again = shlex.join(["amnesis", *words, "--resume"])
        raise Interrupted(f"{interrupted}; go on with: {again}") from None


def data_notes(data: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Say what of the data was cut, left out or there twice."""
    said = {
        "truncated": "examples of the {set} set were cut at max_length",
        "dropped": "examples of the {set} set were left out: nothing of their answers fits",
        "duplicates": "examples of the {set} set are repetitions",
        "also_in_forget": "examples of the {set} set are in the forget set too",
    }
    return [
        f"{counts[key]} {text.format(set=name)}"
        for name, counts in data.items()
        for key, text in said.items()
        if counts.get(key)
    ]


def before_and_after(results: Mapping[str, Any]) -> Any:
    """Lay out the judgements of a run as a table for the terminal."""
    from rich.table import Table

    phases = [phase for phase in ("before", "after", "retrained") if phase in results]
    table = Table("metric", *("never knew" if p == "retrained" else p for p in phases))
    for name in results["before"]:
        cells = [results[phase].get(name) for phase in phases]
        table.add_row(name, *("–" if c is None else f"{c:.3f}" for c in cells))
    return table


def quiet_libraries() -> None:
    """Keep the libraries' own chatter off the terminal; for use at the command line's edge."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def cache_folder() -> Path:
    """Give the user's cache folder for amnesis; for use at the command line's edge."""
    import os

    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "amnesis"


def _silent(what: str, done: int, total: int) -> None:
    pass
