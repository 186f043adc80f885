"""``amnesis sweep``: the command."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amnesis_evaluation.commands import inputs

if TYPE_CHECKING:
    from amnesis_evaluation.commands.sweep.summary import Summary
    from amnesis_evaluation.commands.sweep.work import Checked, Machine

SUMMARY = "sweep.json"
ENGINES = ("local", "ray")


def sweep(  # long for its options: each is a line of --help
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="SWEEP", help="The sweep, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY.SUB=VALUE]...", help="Changes: trials=20, recipe.training.steps=10."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder of the study; without it a new one. One that holds this sweep is "
            "gone on with, by as many processes as are started."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check all that can be checked, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
    engine: Annotated[str, typer.Option(help="local: this process; ray: a Ray cluster.")] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes of --engine ray; default: one per GPU, or per CPU."),
    ] = None,
    device: inputs.Device = None,
    trust_remote_code: inputs.TrustRemoteCode = False,
) -> None:
    """Run one recipe over methods, hyper-parameters and seeds, and compare what comes out.

    A sweep that was cut off goes on where it was: start it again with the same --out. Several
    processes or machines that are started so share the study, and no trial is run twice.
    """
    from amnesis.cli import cache_folder, make_new_folder, quiet_libraries, registry_of
    from amnesis.errors import RecipeError, did_you_mean
    from amnesis_evaluation.commands.sweep.settings import Sweep
    from amnesis_evaluation.commands.sweep.work import Machine
    from amnesis_evaluation.commands.sweep.work import check as check_sweep

    if engine not in ENGINES:
        raise RecipeError(f"--engine {engine!r} is none; {did_you_mean(engine, ENGINES)}")
    if workers is not None and engine == "local":
        raise RecipeError(
            "--workers is of --engine ray; start this command again for each further process"
        )
    settings = Sweep.load(file, overrides or [])
    quiet_libraries()
    machine = Machine(
        device=device,
        trust_remote_code=trust_remote_code,
        reference_cache=cache_folder() / "reference",
        registry=registry_of(context),
    )
    checked = check_sweep(settings, machine)
    if check:
        _print_plan(checked, as_json=as_json)
        return
    folder = out or make_new_folder("sweep")
    again = ["amnesis", "sweep", str(file), *(overrides or ()), "--out", str(folder)]
    summary = _carry_out(
        checked, folder, machine, engine, workers, again, _saying(to_stderr=as_json)
    )
    if summary is not None:
        _show(summary, as_json=as_json)


def _saying(*, to_stderr: bool) -> Callable[[str], None]:
    from amnesis.errors import printable

    def say(line: str) -> None:
        print(printable(line), file=sys.stderr if to_stderr else sys.stdout, flush=True)

    return say


def _carry_out(
    checked: Checked,
    folder: Path,
    machine: Machine,
    engine: str,
    workers: int | None,
    again: Sequence[str],
    said: Callable[[str], None],
) -> Summary | None:
    """Work on the study until nothing is left; return what was found, on the first process."""
    from amnesis.cli import ProgressBars
    from amnesis.distributed.processes import world
    from amnesis.errors import Interrupted
    from amnesis.storage import write_json
    from amnesis_evaluation.commands.sweep.ray_cluster import work_on_ray
    from amnesis_evaluation.commands.sweep.summary import Summary
    from amnesis_evaluation.commands.sweep.work import open_study, work

    study = open_study(checked, folder) if world()[0] == 0 else None
    try:
        with ProgressBars() as progress:
            if engine == "ray" and study is not None:
                work_on_ray(checked, study, machine, workers, progress, said)
            else:
                work(checked, study, folder, machine, progress, said)
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted(f"the sweep goes on with: {shlex.join(again)}") from None
    if study is None:
        return None
    summary = Summary.of(study.trials(), checked.goals, checked.sweep.seeds, folder)
    write_json(folder / SUMMARY, summary.document())
    return summary


def _print_plan(checked: Checked, *, as_json: bool) -> None:
    from amnesis.cli import console

    count, seeds = checked.space.size(), len(checked.sweep.seeds)
    first, second = checked.goals.metrics
    if as_json:
        plan = {
            "trials": count,
            "seeds": checked.sweep.seeds,
            "goals": [first, second],
            "directions": list(checked.goals.directions),
            "first_run": checked.first.cost.lines(),
        }
        print(json.dumps(plan, indent=2, ensure_ascii=False))
        return
    plain = console()
    parts = [(count, "configuration"), (seeds, "seed"), (count * seeds, "run")]
    words = [f"{number} {word}{'' if number == 1 else 's'}" for number, word in parts]
    plain.print(f"{words[0]} with {words[1]}: {words[2]}")
    plain.print(f"forgetting by {first}, retention by {second}")
    plain.print("of the first run:")
    for line in checked.first.cost.lines():
        plain.print(line)


def _show(summary: Summary, *, as_json: bool) -> None:
    from amnesis.cli import console, print_notes
    from amnesis_evaluation.commands.compare.shown import show

    if as_json:
        print(json.dumps(summary.document(), indent=2, ensure_ascii=False))
        return
    plain, table = console(), summary.table()
    plain.print(table.title, soft_wrap=True)
    plain.print(table.upright())
    if summary.comparison is not None:
        show(summary.comparison, [], "table")
    print_notes(summary.notes())
    plain.print(f"everything is in {summary.folder}", soft_wrap=True)
