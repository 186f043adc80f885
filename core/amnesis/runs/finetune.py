"""Making models: a target that knows what is to be forgotten, or one that never knew it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TYPE_CHECKING
from pydantic import Field, model_validator
from amnesis.runs.folder import refuse_if_taken
from amnesis.config.problems import Problems
from amnesis.contracts.stream import Risk
from amnesis.data.templates import AnyTemplate, Template
from amnesis.distributed.processes import barrier, from_first_rank, join
from amnesis.models.creation import NewModelSettings, new_model, train_tokenizer
from amnesis.models.devices import examined_device
from amnesis.models.loading import ModelSettings, examined_model, load_model, load_tokenizer
from amnesis.runs.preflight import examined_sets
from amnesis.progress import ProgressCallback
from amnesis.runs.recipe import BaseRecipe, Named
from amnesis.runs.folder import begin, new_folder
from amnesis.runs.results import RunResult, SCHEMA, environment
from amnesis.storage import write_json, write_model
from amnesis.training.callbacks import StepProgress, TensorBoard
from amnesis.training.settings import TrainingSettings
from amnesis.training.unlearner import Unlearner

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.trainer_callback import TrainerCallback
    from amnesis.data.templates import Row
    from amnesis.discovery.registry import Registry

class FinetuneRecipe(BaseRecipe):
    """A finetuning: a model, and the sets of a benchmark that it is to know."""

    model: ModelSettings | NewModelSettings
    tokenizer: ModelSettings | None = Field(None, description="where not the model's own")
    benchmark: Named
    sets: list[str] = Field(min_length=1, description="the benchmark's sets to train on")
    tokenizer_sets: list[str] | None = Field(
        None, description="sets that a new tokenizer is trained on, where not the same"
    )
    template: AnyTemplate = Field(default_factory=Template)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        paths = {"model", "tokenizer"}
        named = {k: {"path": v} for k, v in document.items() if k in paths and isinstance(v, str)}
        return {**document, **named}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.tokenizer_sets is not None and self.tokenizer is not None:
            raise ValueError("give tokenizer or tokenizer_sets, not both")
        if isinstance(self.model, ModelSettings) and self.model.quantize is not None:
            raise ValueError("model.quantize: quantized weights do not train")
        return self


def finetune(
    recipe: FinetuneRecipe | Mapping[str, Any],
    out: Path | str | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    trust_remote_code: bool = False,
    progress: ProgressCallback | None = None,
    registry: Registry | None = None,
) -> RunResult:
    """Train a model on the sets that ``recipe`` names and leave it in ``out``.

    Raises:
        AmnesisError: anything about the input is wrong.
    """
    started = time.monotonic()
    if not isinstance(recipe, FinetuneRecipe):
        recipe = FinetuneRecipe.parse(recipe)
    join(device)
    folder = Path(out) if out is not None else from_first_rank(lambda: new_folder("finetune"))
    if not resume:
        from_first_rank(lambda: refuse_if_taken(folder, overwrite=overwrite))
    device, rows, read = examined(
        recipe, device=device, trust_remote_code=trust_remote_code, registry=registry
    )
    finished = from_first_rank(lambda: begin(folder, recipe, resume=resume, overwrite=overwrite))
    if finished is not None:
        return RunResult(folder, finished)
    model, tokenizer = _model_of(recipe, read, device, trust_remote_code)
    callbacks: list[TrainerCallback] = [TensorBoard(folder / "tensorboard")]
    if progress is not None:
        callbacks.append(StepProgress(progress, "training"))
    fitted = Unlearner(
        model,
        tokenizer,
        Risk(),
        training=recipe.training,
        template=recipe.template,
        seed=recipe.seed,
        callbacks=callbacks,
        device=device,
        output=folder / "checkpoints",
    ).fit(rows, progress=progress, resume=resume)
    write_model(folder / "model", model, tokenizer)
    results = {
        "schema": SCHEMA,
        "trajectory": fitted.trajectory,
        "steps": fitted.steps,
        "seconds": round(time.monotonic() - started, 2),
        "data": {"train": fitted.data["forget"]},
        "notes": fitted.notes,
        "environment": environment(device),
    }
    write_json(folder / "results.json", results)
    barrier()  # no rank reads, or leaves, before everything is there
    return RunResult(folder, results)


def examined(
    recipe: FinetuneRecipe,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
    registry: Registry | None = None,
) -> tuple[str, list[Row], list[Row]]:
    """Check all that can be checked; give device, rows to train on, rows for a new tokenizer.

    Raises:
        RecipeError: listing every problem that was found.
    """
    problems = Problems()
    names = [*recipe.sets, *(recipe.tokenizer_sets or ())]
    _, sets = examined_sets(problems, recipe.benchmark, names, recipe.template, registry)
    found = problems.attempt("device", lambda: examined_device(device))
    if isinstance(recipe.model, ModelSettings):
        settings = recipe.model
        problems.attempt("model", lambda: examined_model(settings, trust_remote_code))
    problems.raise_any("the finetuning cannot start")
    assert found is not None  # noqa: S101  # no problem was found
    rows = [row for name in recipe.sets for row in sets[name]]
    read = [row for name in recipe.tokenizer_sets or recipe.sets for row in sets[name]]
    return found, rows, read


def _model_of(
    recipe: FinetuneRecipe, rows: list[Row], device: str, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if isinstance(recipe.model, ModelSettings):
        tokenizer = load_tokenizer(
            recipe.tokenizer or recipe.model, trust_remote_code=trust_remote_code
        )
        return (
            load_model(recipe.model, device=device, trust_remote_code=trust_remote_code),
            tokenizer,
        )
    if recipe.tokenizer is not None:
        tokenizer = load_tokenizer(recipe.tokenizer, trust_remote_code=trust_remote_code)
    else:
        template = recipe.template
        texts = [template.prompt_of(row) + template.answer_of(row) for row in rows]
        tokenizer = train_tokenizer(texts, recipe.model.vocabulary)
    return new_model(recipe.model, tokenizer, recipe.seed).to(device), tokenizer
