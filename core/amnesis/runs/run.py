"""A run from recipe to results: evaluate, unlearn, evaluate again, and write it all down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.distributed.processes import barrier
from amnesis.distributed.shards import has_shards
from amnesis.models.loading import ModelSettings, load_model, load_tokenizer
from amnesis.models.trainable import is_adapter, merged, train_only, with_adapter, with_lora
from amnesis.progress import ProgressCallback, watched
from amnesis.runs.evaluations import Evaluations, Identity
from amnesis.runs.folder import RunFolder
from amnesis.runs.preflight import Prepared, parse_recipe, prepare
from amnesis.runs.recipe import Recipe
from amnesis.runs.results import RunResult
from amnesis.runs.workbench import RunWorkbench
from amnesis.training.callbacks import AfterFirstStep, StepProgress
from amnesis.training.monitoring.watchers import Watchers
from amnesis.training.unlearner import FitResult, Unlearner

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
    command: str | None = None,
) -> RunResult:
    """Unlearn as ``recipe`` says and leave model, numbers and logs in ``out``.

    ``out`` defaults to a new ``runs/run-<time>`` in the working directory. ``resume`` goes on with
    a run in ``out`` that was cut off; its recipe must be the same. Names are looked up once, in
    ``registry`` or among all that is installed. The results name the ``command`` line, if any.

    Raises:
        AmnesisError: anything about the input is wrong; all that can be known before a weight is
            loaded is said then, at once.
    """
    if not isinstance(recipe, Recipe):
        recipe = parse_recipe(recipe, device=device, registry=registry)
    owned = RunFolder.own(out, "run", resume=resume, overwrite=overwrite, device=device)
    with owned as folder:
        folder.command = command
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
        with watched(progress) as shown:
            return _Run(
                recipe, folder, prepared, tokenizer, load, shown, reference_cache
            ).carry_out()


@dataclass(frozen=True)
class _Run:
    """A run whose inputs are in order and whose folder is claimed."""

    recipe: Recipe
    folder: RunFolder
    prepared: Prepared
    tokenizer: PreTrainedTokenizerBase
    load: Callable[[ModelSettings], PreTrainedModel]
    progress: ProgressCallback
    reference_cache: Path | None

    def carry_out(self) -> RunResult:
        """Evaluate, unlearn, write the model, and only then evaluate what was written."""
        recipe, folder = self.recipe, self.folder
        evaluations = Evaluations(
            self.prepared.benchmark,
            recipe.evaluate,
            self.prepared.method,
            self.tokenizer,
            recipe.template,
            folder.checkpoints,
            self.progress,
        )
        if recipe.retrained is not None and not evaluations.recall("retrained"):
            retrained = self.load(recipe.retrained)
            evaluations.evaluate("retrained", retrained, Identity.of(retrained))
        watchers = Watchers.of(
            folder.tensorboard / recipe.folder_name,
            lambda: evaluations.picture("before", recipe),
            run_name=recipe.run_name,
            report_to=recipe.report_to,
            probes=self.prepared.method.probes,
        )
        rows = f"{self.prepared.forget.digest()} {self.prepared.retain.digest()}"
        fitted = folder.read_fitted(rows)
        recalled = evaluations.recall("before")
        if fitted is None:
            model = self.load(recipe.model)
            identity = None if recalled else Identity.of(model)  # before an adapter is in it
            model = trainable_model(recipe, model)
            if not recalled:
                evaluations.evaluate("before", model, identity)
            with watchers.watching():
                fitted = watchers.noted(self._fit(model, evaluations, watchers))
            if recipe.merges:
                model = merged(model)
            folder.write_fitted(model, self.tokenizer, fitted, rows, recipe.template)
            if has_shards(model):  # each rank evaluates the whole one by itself, as before
                barrier()  # the first rank has written it
                model = self._written()
        else:
            if not recalled:
                before = self.load(recipe.model)
                evaluations.evaluate("before", before, Identity.of(before))
            model = self._written()
        if not evaluations.recall("after"):
            evaluations.evaluate("after", model)
        fitted = watchers.finish(evaluations.picture("after", recipe), fitted)
        return folder.finish(
            self.prepared.device,
            evaluations.results(fitted).recognisable(
                {
                    "after": folder.weights_digest(),
                    "forget rows": self.prepared.forget.digest(),
                    "retain rows": self.prepared.retain.digest(),
                }
            ),
            evaluations.made,
            self.prepared.method.registry,
        )

    def _fit(
        self, model: PreTrainedModel, evaluations: Evaluations, watchers: Watchers
    ) -> FitResult:
        recipe, folder, method = self.recipe, self.folder, self.prepared.method
        if method.procedure is not None:
            tools = RunWorkbench(
                recipe=recipe,
                tokenizer=self.tokenizer,
                forget=self.prepared.forget,
                retain=self.prepared.retain,
                registry=method.registry,
                device=self.prepared.device,
                progress=self.progress,
                callbacks=[StepProgress(self.progress, "training")],
            )
            method.procedure.apply(model, tools)
            return tools.result()
        return Unlearner(
            model,
            self.tokenizer,
            method=method,
            training=recipe.training,
            template=recipe.template,
            seed=recipe.seed,
            reference_cache=self.reference_cache,
            callbacks=[
                *watchers.callbacks,
                StepProgress(self.progress, "unlearning"),
                AfterFirstStep(folder.keep),
            ],
            device=self.prepared.device,
            output=folder.checkpoints,
            stop_when=recipe.stop_when,
            until=recipe.until,
            warns=True,
            evaluate=evaluations.along,
            evaluate_every=self.prepared.evaluate_every,
        ).fit(
            self.prepared.examples.get("forget", self.prepared.forget),
            self.prepared.examples.get("retain", self.prepared.retain),
            progress=self.progress,
            resume=folder.resume,
        )

    def _written(self) -> PreTrainedModel:
        """Return the trained model that the run wrote before it was cut off."""
        place = self.folder.model
        if is_adapter(place):
            return with_adapter(self.load(self.recipe.model), place)
        settings = ModelSettings(path=str(place), attention=self.recipe.model.attention)
        return self.load(settings)


def trainable_model(recipe: Recipe, model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with what the recipe trains of it, and nothing else, requiring gradients."""
    if recipe.lora is not None:
        model = with_lora(model, recipe.lora, recipe.seed)
    if recipe.trainable is not None:
        train_only(model, recipe.trainable)
    return model
