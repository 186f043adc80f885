"""A run from recipe to results: judge, unlearn, judge again, and write it all down."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis import artifacts
from amnesis.distributed.processes import barrier, from_first_rank, join
from amnesis.errors import OutputError
from amnesis.judging import Judging
from amnesis.models.loading import load_model, load_tokenizer
from amnesis.models.trainable import merged, train_only, with_lora
from amnesis.preflight import prepare
from amnesis.progress import ProgressCallback
from amnesis.recipe import BaseRecipe, Recipe
from amnesis.storage import write_json, write_model, write_table, write_text
from amnesis.tracking import StepProgress, TensorBoard
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
    if recipe.merges:
        model = merged(model)
    write_model(folder / "model", model, tokenizer)
    results = {
        "schema": SCHEMA,
        **judging.values(),
        "intervals": judging.intervals(),
        "sets": judging.sets(),
        "trajectory": fitted.trajectory,
        "attacks": judging.attacks(),
        "lm_eval": judging.lm_eval(),
        "steps": fitted.steps,
        "seconds": round(time.monotonic() - started, 2),
        "data": fitted.data,
        "notes": [*fitted.notes, *judging.notes()],
        "environment": environment(device),
    }
    write_table(folder / "examples.parquet", judging.records())
    write_json(folder / "results.json", results)
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
        write_text(written, recipe.to_yaml())
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


def _silent(what: str, done: int, total: int) -> None:
    pass
