"""A recipe's command, from the command line to what the terminal shows."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amnesis.cli.cache import cache_folder
from amnesis.cli.console import quiet_libraries
from amnesis.distributed.processes import from_first_rank, join, world
from amnesis.errors import Interrupted, OutputError
from amnesis.progress import Progress
from amnesis.runs.finetune import FinetuneRecipe, examined, finetune
from amnesis.runs.folder import new_folder, refuse_if_taken
from amnesis.runs.preflight import prepare
from amnesis.runs.recipe import BaseRecipe, Recipe
from amnesis.runs.results import RunResult
from amnesis.runs.run import run


@dataclass(frozen=True)
class Job:
    """What one recipe's command does in its own way; all else, ``recipe_command`` does."""

    recipe: type[BaseRecipe]
    plan: Callable[..., Iterable[str]]  # what --check prints
    start: Callable[..., RunResult]
    closing: Callable[[RunResult], str]
    table: Callable[[Mapping[str, Any]], Any] | None = None


def recipe_command(
    name: str,
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
    """What ``amnesis run`` and ``amnesis finetune`` do: the job with progress, then its results."""
    from rich.console import Console

    quiet_libraries()
    job = JOBS[name]
    loaded = job.recipe.load(recipe, overrides)
    console = Console()
    if resume and out is None:
        raise OutputError("--resume needs --out, the folder of the run that was cut off")
    if check:
        if out is not None and not resume:
            refuse_if_taken(out, overwrite=overwrite)
        for line in job.plan(loaded, out, device=device, trust_remote_code=trust_remote_code):
            console.print(line)
        return
    join(device)
    folder = out or from_first_rank(lambda: new_folder(name))
    words = [name, str(recipe), *overrides, "--out", str(folder)]
    with Progress() as progress, saying_how_to_go_on(words):
        result = job.start(
            loaded,
            folder,
            resume=resume,
            overwrite=overwrite,
            device=device,
            trust_remote_code=trust_remote_code,
            progress=progress,
        )
    if world()[0] != 0:
        return
    if job.table is not None:
        console.print(job.table(result.results))
    for note in [*data_notes(result.results["data"]), *result.results["notes"]]:
        console.print(f"note: {note}")
    console.print(job.closing(result))


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


def _run_plan(recipe: Recipe, out: Path | None, **machine: Any) -> list[str]:
    return prepare(recipe, out=out, **machine).plan.lines()


def _run(recipe: Recipe, folder: Path, **options: Any) -> RunResult:
    return run(recipe, folder, reference_cache=cache_folder() / "reference", **options)


def _run_closing(result: RunResult) -> str:
    return f"{result.results['steps']} steps, {result.results['seconds']} s: {result.folder}"


def _finetune_plan(recipe: FinetuneRecipe, out: Path | None, **machine: Any) -> list[str]:
    _, rows, _ = examined(recipe, **machine)
    steps, _ = recipe.training.length(len(rows))
    return [f"{steps} steps over {len(rows)} rows"]


def _finetune_closing(result: RunResult) -> str:
    steps, seconds = result.results["steps"], result.results["seconds"]
    loss = result.results["trajectory"][-1]["forget/loss"]
    return f"{steps} steps, {seconds} s, last loss {loss:.4f}: {result.folder / 'model'}"


JOBS: Mapping[str, Job] = {
    "run": Job(Recipe, _run_plan, _run, _run_closing, before_and_after),
    "finetune": Job(FinetuneRecipe, _finetune_plan, finetune, _finetune_closing),
}
