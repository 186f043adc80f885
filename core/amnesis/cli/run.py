"""``amnesis run`` and ``amnesis finetune``: from a recipe file to what the terminal shows."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amnesis.cli.terminal import AsJson

if TYPE_CHECKING:
    from rich.table import Table

    from amnesis.runs.recipe import Recipe
    from amnesis.runs.results import Results, RunResult

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Changes of the recipe's values."),
]
Out = Annotated[Path | None, typer.Option(help="The folder for results; without it a new one.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what the folder holds.")]
Check = Annotated[bool, typer.Option("--check", help="Check all that can be checked, and stop.")]
Measure = Annotated[
    bool,
    typer.Option("--measure", help="With --check, make two steps: their memory and their time."),
]
Device = Annotated[str | None, typer.Option(help="Where to compute, such as cpu or cuda:0.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that a model repository brings.")
]


def run(
    context: typer.Context,
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    check: Check = False,
    measure: Measure = False,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Unlearn as a recipe says, and evaluate the model before and after."""
    from amnesis.cli.cache import cache_folder
    from amnesis.cli.terminal import registry_of
    from amnesis.errors import RecipeError
    from amnesis.runs.preflight import parse_recipe
    from amnesis.runs.recipe import Recipe
    from amnesis.runs.run import run as run_recipe

    machine: dict[str, Any] = {
        "device": device,
        "trust_remote_code": trust_remote_code,
        "registry": registry_of(context),
    }
    if measure and not check:
        raise RecipeError("--measure goes with --check: a run itself measures as it goes")
    settings = parse_recipe(Recipe.read(recipe, overrides or ()), str(recipe), out=out, **machine)
    _check_out(out, resume=resume, overwrite=overwrite)
    if check:
        _check(settings, out, machine, measure=measure)
        return
    reference = cache_folder() / "reference"
    words = ["run", str(recipe), *(overrides or ())]
    result = _carry_out(
        words,
        out,
        lambda folder, progress: run_recipe(
            settings,
            folder,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
            reference_cache=reference,
            command=command_line(words, out, resume=resume, overwrite=overwrite),
            **machine,
        ),
    )
    if result is not None:
        _show_run(result, as_json=as_json)


def _check(recipe: Recipe, out: Path | None, machine: dict[str, Any], *, measure: bool) -> None:
    """Print what a run will take: as its configuration says and, if asked, as two steps show."""
    from amnesis.cli.terminal import console, quiet_libraries
    from amnesis.distributed.processes import world
    from amnesis.progress import ProgressBars
    from amnesis.runs.planning.measuring import measure_steps
    from amnesis.runs.planning.plan import plan_memory
    from amnesis.runs.preflight import prepare

    quiet_libraries()
    prepared = prepare(recipe, out=out, **machine)
    trusted = machine["trust_remote_code"]
    with ProgressBars() as progress:
        plan = plan_memory(recipe, prepared, trust_remote_code=trusted, progress=progress)
        lines = prepared.cost.lines([] if plan is None else plan.lines())
        if measure:
            found = measure_steps(recipe, prepared, trust_remote_code=trusted, progress=progress)
            lines += found.lines()
    if world()[0] == 0:
        for line in lines:
            console().print(line)


def _show_run(result: RunResult, *, as_json: bool) -> None:
    from amnesis.cli.terminal import console, print_json, print_notes, print_verdict
    from amnesis.runs.answers import REPORT

    results = result.results
    if as_json:
        print_json({"folder": str(result.folder), **results.document()})
        return
    print_verdict(results.verdict)
    console().print(phases_table(results))
    _print_notes_of(results)
    print_notes(answers_notes(result.folder))
    shown = result.folder / REPORT if (result.folder / REPORT).is_file() else result.folder
    console().print(f"{results.steps} steps, {results.seconds} s: {shown}", soft_wrap=True)


def finetune(
    context: typer.Context,
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    check: Check = False,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Make a model that knows something: a target to unlearn, or a retain-only reference."""
    from amnesis.cli.terminal import console, print_json, registry_of
    from amnesis.runs.finetune import finetune as finetune_recipe
    from amnesis.runs.finetune import prepare_finetuning
    from amnesis.runs.recipe import FinetuneRecipe

    settings = FinetuneRecipe.load(recipe, overrides or [])
    machine: dict[str, Any] = {
        "device": device,
        "trust_remote_code": trust_remote_code,
        "registry": registry_of(context),
    }
    _check_out(out, resume=resume, overwrite=overwrite)
    if check:
        rows = len(prepare_finetuning(settings, **machine).rows)
        console().print(f"{settings.training.length(rows)[0]} steps over {rows} rows")
        return
    words = ["finetune", str(recipe), *(overrides or ())]
    result = _carry_out(
        words,
        out,
        lambda folder, progress: finetune_recipe(
            settings,
            folder,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
            command=command_line(words, out, resume=resume, overwrite=overwrite),
            **machine,
        ),
    )
    if result is not None:
        results = result.results
        if as_json:
            print_json({"folder": str(result.folder), **results.document()})
            return
        _print_notes_of(results)
        last = results.trajectory[-1].get("train/loss")
        loss = "" if last is None else f", last loss {last:.4f}"
        console().print(
            f"{results.steps} steps, {results.seconds} s{loss}: {result.folder / 'model'}",
            soft_wrap=True,
        )


def _check_out(out: Path | None, *, resume: bool, overwrite: bool) -> None:
    from amnesis.errors import OutputError
    from amnesis.runs.folder import check_free, check_one_of

    check_one_of(resume=resume, overwrite=overwrite)
    if resume and out is None:
        raise OutputError("--resume needs --out, the folder of the run that was cut off")
    if out is not None and not resume:
        check_free(out, overwrite=overwrite)


def _carry_out(
    words: Sequence[str], out: Path | None, start: Callable[[Path | None, Any], RunResult]
) -> RunResult | None:
    """Start a job in its folder with progress; return its result, on the first process alone."""
    from amnesis.cli.terminal import quiet_libraries
    from amnesis.distributed.processes import world
    from amnesis.progress import ProgressBars

    quiet_libraries()
    with ProgressBars() as progress, _saying_how_to_go_on(words):
        result = start(out, progress)
    return result if world()[0] == 0 else None


def command_line(words: Sequence[str], out: Path | None, **flags: bool) -> str:
    """Return a command line as a shell takes it, so that it can be given again."""
    folder = [] if out is None else ["--out", str(out)]
    return shlex.join(
        ["amnesis", *words, *folder, *(f"--{flag}" for flag, on in flags.items() if on)]
    )


@contextmanager
def _saying_how_to_go_on(words: Sequence[str]) -> Iterator[None]:
    """Add to an interruption the command line that goes on from there."""
    from amnesis.errors import Interrupted

    try:
        yield
    except Interrupted as interrupted:
        again = shlex.join(["amnesis", *words, "--out", str(interrupted.folder), "--resume"])
        raise Interrupted(f"{interrupted}; go on with: {again}") from None


def _print_notes_of(results: Results) -> None:
    from amnesis.cli.terminal import print_notes

    print_notes([*data_notes(results.data), *results.notes])


def data_notes(data: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return what of the data was cut, left out or there twice, in words."""
    texts = {
        "truncated": "cut at max_length",
        "dropped": "left out, since nothing of their answers fits",
        "duplicates": "that repeat others",
        "also_in_forget": "that are in the forget set too",
    }
    return [
        f"examples of the {name} set {text}: {counts[key]}"
        for name, counts in data.items()
        for key, text in texts.items()
        if counts.get(key)
    ]


def answers_notes(folder: Path) -> list[str]:
    """Return what to know of the texts that a folder holds; nothing where it holds none."""
    from amnesis.runs.answers import ANSWERS, REPORT

    names = [name for name in (ANSWERS, REPORT) if (folder / name).is_file()]
    if ANSWERS not in names:
        return []
    if any(folder.glob("tensorboard/*/answers")):
        names.append("tensorboard")
    *others, last = names
    listed = f"{', '.join(others)} and {last}" if others else last
    return [
        f"{listed} hold texts that must be forgotten, for your eyes alone; delete "
        f"them with: {shlex.join(['amnesis', 'report', str(folder), '--delete-answers'])} "
        f"(evaluate.keep_answers=false keeps none)"
    ]


def phases_table(results: Results) -> Table:
    """Return a run's values before and after, and the retrained model's, for the terminal."""
    from rich.table import Table
    from rich.text import Text

    from amnesis.errors import printable

    phases = results.phases()
    table = Table("metric", *phases)
    for name in phases["before"]:
        cells = [values.get(name) for values in phases.values()]
        table.add_row(Text(printable(name)), *("–" if c is None else f"{c:.3f}" for c in cells))
    return table
