"""A run from recipe to results: judge, unlearn, judge again, and write it all down."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TYPE_CHECKING
from amnesis.runs.folder import refuse_if_taken
from amnesis.distributed.processes import barrier, from_first_rank, join
from amnesis.runs.evaluations import Judging
from amnesis.models.loading import load_model, load_tokenizer
from amnesis.models.trainable import merged, train_only, with_lora
from amnesis.runs.preflight import prepare
from amnesis.progress import ProgressCallback
from amnesis.runs.recipe import Recipe
from amnesis.storage import write_json, write_model, write_table
from amnesis.training.callbacks import StepProgress, TensorBoard
from amnesis.training.unlearner import Unlearner
from amnesis.runs.folder import begin, new_folder
from amnesis.runs.results import RunResult, SCHEMA, environment

if TYPE_CHECKING:
    from amnesis.discovery.registry import Registry

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
        from_first_rank(lambda: refuse_if_taken(folder, overwrite=overwrite))
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


def _silent(what: str, done: int, total: int) -> None:
    pass
