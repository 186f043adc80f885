"""Making models: a target that knows what is to be forgotten, or one trained without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.config.problems import Problems
from amnesis.contracts.stream import Risk, StreamLoss, WeightedTerm
from amnesis.data.examples import Mixture
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import Method
from amnesis.models.creation import new_model, train_tokenizer
from amnesis.models.devices import check_device
from amnesis.models.loading import ModelSettings, check_model, load_model, load_tokenizer
from amnesis.progress import ProgressCallback, watched
from amnesis.runs.folder import RunFolder
from amnesis.runs.preflight import check_sets
from amnesis.runs.recipe import FinetuneRecipe
from amnesis.runs.results import Results, RunResult
from amnesis.training.callbacks import AfterFirstStep, StepProgress
from amnesis.training.monitoring.board import Picture
from amnesis.training.monitoring.trackers import build_trackers
from amnesis.training.monitoring.watchers import Watchers
from amnesis.training.unlearner import FitResult, Unlearner

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.data.templates import Row
    from amnesis.discovery.registry import Registry


@dataclass(frozen=True, kw_only=True)
class PreparedFinetuning:
    """A finetuning whose inputs are in order.

    Attributes:
        device: where to compute.
        rows: what the model is to know.
        tokenizer_rows: what a new tokenizer is trained on.
        registry: where names come from.
    """

    device: str
    rows: list[Row]
    tokenizer_rows: list[Row]
    registry: Registry


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
    command: str | None = None,
) -> RunResult:
    """Train a model on the sets that ``recipe`` names and leave it in ``out``.

    The results name the ``command`` line, if any.

    Raises:
        AmnesisError: anything about the input is wrong.
    """
    if not isinstance(recipe, FinetuneRecipe):
        recipe = FinetuneRecipe.parse(recipe)
    owned = RunFolder.own(out, "finetune", resume=resume, overwrite=overwrite, device=device)
    with owned as folder:
        folder.command = command
        prepared = prepare_finetuning(
            recipe, device=device, trust_remote_code=trust_remote_code, registry=registry
        )
        if (finished := folder.begin(recipe)) is not None:
            return finished
        rows = Mixture(((1.0, prepared.rows),)).digest()
        fitted = folder.read_fitted(rows)
        picture = _picture(recipe)
        watchers = Watchers.of(
            folder.tensorboard / recipe.folder_name,
            lambda: picture,
            run_name=recipe.run_name,
            report_to=recipe.report_to,
            prefix="train/",
        )
        if fitted is None:
            model, tokenizer = _model_of(recipe, prepared, trust_remote_code)
            with watchers.watching(), watched(progress) as shown:
                fitted = watchers.noted(
                    _fit(recipe, prepared, folder, model, tokenizer, watchers, shown)
                )
            folder.write_fitted(model, tokenizer, fitted, rows, recipe.template)
        fitted = watchers.finish(picture, fitted)
        results = Results(
            trajectory=fitted.trajectory,
            steps=fitted.steps,
            data=fitted.data,
            notes=fitted.notes,
            fingerprints={"rows": rows},
        )
        return folder.finish(prepared.device, results)


def _fit(
    recipe: FinetuneRecipe,
    prepared: PreparedFinetuning,
    folder: RunFolder,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    watchers: Watchers,
    progress: ProgressCallback,
) -> FitResult:
    callbacks = [
        *watchers.callbacks,
        AfterFirstStep(folder.keep),
        StepProgress(progress, "training"),
    ]
    return Unlearner(
        model,
        tokenizer,
        method=Method(
            forget=StreamLoss("train", (WeightedTerm(Risk()),)),
            retain=None,
            combiner=None,
            probes=(),
            registry=prepared.registry,
        ),
        training=recipe.training,
        template=recipe.template,
        seed=recipe.seed,
        callbacks=callbacks,
        device=prepared.device,
        output=folder.checkpoints,
    ).fit(prepared.rows, progress=progress, resume=folder.resume)


def _picture(recipe: FinetuneRecipe) -> Picture:
    """Return what TensorBoard shows of a finetuning beside what is logged of it."""
    text = f"```yaml\n{recipe.without_rows()}```"
    return Picture(texts={"recipe": text}, hyper_parameters=recipe.hyper_parameters())


def prepare_finetuning(
    recipe: FinetuneRecipe,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
    registry: Registry | None = None,
) -> PreparedFinetuning:
    """Check all that can be checked, and return what a finetuning starts from.

    Raises:
        RecipeError: listing every problem.
    """
    registry = registry or default_registry()
    problems = Problems()
    names = [*recipe.sets, *(recipe.tokenizer_sets or ())]
    _, sets = check_sets(problems, recipe.benchmark, names, recipe.template, registry)
    usable = problems.attempt("device", lambda: check_device(device))
    problems.attempt("report_to", lambda: build_trackers(recipe.report_to or ()))
    if isinstance(recipe.model, ModelSettings):
        settings = recipe.model
        problems.attempt("model", lambda: check_model(settings, trust_remote_code))
    problems.raise_any("the finetuning cannot start")
    assert usable is not None  # noqa: S101  # no problem
    return PreparedFinetuning(
        device=usable,
        rows=[row for name in recipe.sets for row in sets[name]],
        tokenizer_rows=[row for name in recipe.tokenizer_sets or recipe.sets for row in sets[name]],
        registry=registry,
    )


def _model_of(
    recipe: FinetuneRecipe, prepared: PreparedFinetuning, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if isinstance(recipe.model, ModelSettings):
        tokenizer = load_tokenizer(
            recipe.tokenizer or recipe.model, trust_remote_code=trust_remote_code
        )
        model = load_model(
            recipe.model, device=prepared.device, trust_remote_code=trust_remote_code
        )
        return model, tokenizer
    if recipe.tokenizer is not None:
        tokenizer = load_tokenizer(recipe.tokenizer, trust_remote_code=trust_remote_code)
    else:
        template = recipe.template
        texts = [
            template.prompt_of(row) + template.answer_of(row) for row in prepared.tokenizer_rows
        ]
        tokenizer = train_tokenizer(texts, recipe.model.vocabulary)
    return new_model(recipe.model, tokenizer, recipe.seed).to(prepared.device), tokenizer
