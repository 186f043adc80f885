"""A run from recipe to results: evaluate, unlearn, evaluate again, and write it all down."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.models.loading import load_model, load_tokenizer
from amnesis.models.trainable import merged, train_only, with_lora
from amnesis.progress import ProgressCallback
from amnesis.runs.evaluations import Evaluations
from amnesis.runs.folder import RunFolder
from amnesis.runs.preflight import prepare
from amnesis.runs.recipe import Recipe
from amnesis.runs.results import RunResult
from amnesis.training.callbacks import StepProgress, TensorBoard
from amnesis.training.unlearner import Unlearner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from amnesis.discovery.registry import Registry


def run(  # the order of a run, from top to bottom: longer than a function should be
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
    a run in ``out`` that was cut off; its recipe must be the same. Names are looked up once, in
    ``registry`` or among all that is installed.

    Raises:
        AmnesisError: anything about the input is wrong; all that can be known before a weight is
            loaded is said then, at once.
    """
    if not isinstance(recipe, Recipe):
        recipe = Recipe.parse(recipe)
    folder = RunFolder.choose(out, "run", resume=resume, overwrite=overwrite, device=device)
    prepared = prepare(
        recipe,
        device=device,
        out=folder.path,
        trust_remote_code=trust_remote_code,
        registry=registry,
    )
    tokenizer = load_tokenizer(recipe.model, trust_remote_code=trust_remote_code)
    if (finished := folder.begin(recipe)) is not None:
        return finished
    load = partial(load_model, device=prepared.device, trust_remote_code=trust_remote_code)
    report = progress or _silent
    evaluations = Evaluations(
        prepared.benchmark,
        recipe.evaluate,
        prepared.method,
        tokenizer,
        recipe.template,
        folder.checkpoints,
        report,
    )
    if recipe.retrained is not None and not evaluations.recall("retrained"):
        evaluations.evaluate("retrained", load(recipe.retrained))
    model = _trainable(recipe, load(recipe.model))
    unlearner = Unlearner(
        model,
        tokenizer,
        method=prepared.method,
        training=recipe.training,
        template=recipe.template,
        seed=recipe.seed,
        reference_cache=reference_cache,
        callbacks=[
            TensorBoard(folder.tensorboard, prepared.method.probes),
            StepProgress(report, "unlearning"),
        ],
        device=prepared.device,
        output=folder.checkpoints,
        stop_when=recipe.stop_when,
        evaluate=evaluations.along,
        evaluate_every=recipe.evaluate.every,
    )
    if not evaluations.recall("before"):
        evaluations.evaluate("before", model)
    fitted = unlearner.fit(prepared.forget, prepared.retain, progress=report, resume=resume)
    evaluations.evaluate("after", model)
    results = evaluations.results(fitted)
    if recipe.merges:
        model = merged(model)
    return folder.finish(model, tokenizer, prepared.device, results, evaluations.made)


def _trainable(recipe: Recipe, model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with what the recipe trains of it, and nothing else, requiring gradients."""
    if recipe.lora is not None:
        model = with_lora(model, recipe.lora)
    if recipe.trainable is not None:
        train_only(model, recipe.trainable)
    return model


def _silent(what: str, done: int, total: int) -> None:
    pass
