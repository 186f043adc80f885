"""A run from recipe to results: judge, unlearn, judge again, and write it all down."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis import artifacts
from amnesis.contracts import Benchmark, Evaluation, Subject
from amnesis.errors import DataError, RecipeError
from amnesis.models import ModelSettings, default_device, load_model, load_tokenizer
from amnesis.recipe import Recipe
from amnesis.resolve import component_of
from amnesis.tracking import Progress, ProgressCallback, StepProgress, TensorBoard
from amnesis.unlearner import Unlearner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
    overwrite: bool = False,
    device: str | None = None,
    trust_remote_code: bool = False,
    reference_cache: Path | None = None,
    progress: ProgressCallback | None = None,
    registry: Registry | None = None,
) -> RunResult:
    """Unlearn as ``recipe`` says and leave model, numbers and logs in ``out``.

    ``out`` defaults to a new ``runs/run-<time>`` in the working directory.

    Raises:
        AmnesisError: anything about the input is wrong; said before any weight is loaded where
            it can be known then.
    """
    started = time.monotonic()
    if not isinstance(recipe, Recipe):
        recipe = Recipe.parse(recipe)
    benchmark = component_of(("benchmark",), recipe.benchmark, registry)
    if not isinstance(benchmark, Benchmark):
        raise RecipeError(f"benchmark: {benchmark.label} is not a benchmark")
    tell = progress or _silent
    device = device or default_device()
    sets = benchmark.sets()
    missing = {"forget", "retain"} - set(sets)
    if missing:
        raise DataError(f"{benchmark.label} has no set {' and no set '.join(sorted(missing))}")
    tokenizer = load_tokenizer(recipe.model, trust_remote_code=trust_remote_code)
    folder = artifacts.claim(
        Path(out) if out is not None else new_folder("run"), overwrite=overwrite
    )
    artifacts.write_text(folder / "recipe.yaml", recipe.to_yaml())
    model = load_model(recipe.model, device=device, trust_remote_code=trust_remote_code)

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
    )

    def judge(judged: PreTrainedModel, phase: str) -> Evaluation:
        subject = Subject(judged, tokenizer, recipe.template)
        return benchmark.evaluate(
            subject, recipe.evaluate, lambda what, done, all_: tell(f"{phase}: {what}", done, all_)
        )

    judgements = {"before": judge(model, "before")}
    fitted = unlearner.fit(sets["forget"], sets["retain"], progress=tell)
    judgements["after"] = judge(model, "after")
    artifacts.write_model(folder / "model", model, tokenizer)
    if recipe.retrained is not None:
        never_knew = load_model(
            recipe.retrained, device=device, trust_remote_code=trust_remote_code
        )
        judgements["retrained"] = judge(never_knew, "retrained")
    records = [
        {"phase": phase, **record}
        for phase, judgement in judgements.items()
        for record in judgement.examples
    ]
    artifacts.write_table(folder / "examples.parquet", records)
    results = {
        "schema": SCHEMA,
        **{phase: judgement.values for phase, judgement in judgements.items()},
        "trajectory": fitted.trajectory,
        "attacks": {},
        "lm_eval": {},
        "steps": fitted.steps,
        "seconds": round(time.monotonic() - started, 2),
        "data": fitted.data,
        "notes": fitted.notes,
        "environment": environment(device),
    }
    artifacts.write_json(folder / "results.json", results)
    return RunResult(folder, results)


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
    with Progress() as progress:
        result = run(
            loaded,
            out,
            overwrite=overwrite,
            device=device,
            trust_remote_code=trust_remote_code,
            reference_cache=cache_folder() / "reference",
            progress=progress,
        )
    console = Console()
    console.print(before_and_after(result.results))
    for note in result.results["notes"]:
        console.print(f"note: {note}")
    console.print(
        f"{result.results['steps']} steps, {result.results['seconds']} s: {result.folder}"
    )


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


__all__ = ["ModelSettings", "RunResult", "environment", "new_folder", "run", "run_command"]
