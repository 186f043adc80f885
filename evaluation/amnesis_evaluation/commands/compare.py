"""``amnesis compare``: several runs in one table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from amnesis.contracts import ChangeMetric
    from amnesis_evaluation.reports.comparison import Group, Target
    from amnesis_evaluation.reports.tables import Cell, Format, Table

FORMATS = ("table", "markdown", "csv", "latex")


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs or evaluations.")],
    metric: Annotated[
        list[str] | None, typer.Option(help="A column, such as forget/probability; repeatable.")
    ] = None,
    forgetting: Annotated[
        str | None,
        typer.Option(
            help="The front's metric of forgetting; lower is better.",
            show_default="forget/probability",
        ),
    ] = None,
    retention: Annotated[
        str | None,
        typer.Option(
            help="The front's metric of retention; higher is better.",
            show_default="retain/probability",
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Compare at equal forgetting: forget/probability=0.1.")
    ] = None,
    chance: Annotated[
        float | None,
        typer.Option(min=0, max=0.999, help="Chance level of the retention metric."),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="table, markdown, csv or latex.")] = "table",
) -> None:
    """Show runs in one table: seeds as mean ± standard error, the Pareto front marked."""
    from amnesis.errors import RecipeError, did_you_mean
    from amnesis_evaluation.reports.comparison import Run, Target, grouped

    if form not in FORMATS:
        raise RecipeError(f"--format {form!r} is none; {did_you_mean(form, FORMATS)}")
    target = None if at is None else Target.parse(at)
    sides = {"--forgetting": forgetting, "--retention": retention}
    if target is not None:
        for option, value in {**sides, "--chance": chance}.items():
            if value is not None:
                raise RecipeError(
                    f"{option} does not go with --at, which shows no front and no recovery; "
                    f"leave one of them out"
                )
    groups = grouped([Run.load(folder) for folder in folders])
    available = dict.fromkeys(key for group in groups for run in group.runs for key in run.values)
    for option, names in {"--metric": metric, **sides}.items():
        for name in [names] if isinstance(names, str) else names or ():
            if name not in available:
                raise RecipeError(f"{option}: no run has {name!r}; {did_you_mean(name, available)}")
    columns = list(dict.fromkeys(metric or available))
    if target is None:
        front = (forgetting or "forget/probability", retention or "retain/probability")
        table, notes = _side_by_side(groups, columns, front, chance)
    else:
        columns = [name for name in columns if name != target.metric]
        table, notes = _at_equal(groups, target, columns)
    _show(table, form)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _show(table: Table, form: str) -> None:
    from rich.console import Console

    if form != "table":
        print(table.written(cast("Format", form)), end="")
        return
    console = Console()
    print(table.title)
    for part in table.rich(console.width):
        print()
        console.print(part)


def _side_by_side(
    groups: Sequence[Group],
    columns: Sequence[str],
    sides: tuple[str, str],
    chance: float | None,
) -> tuple[Table, list[str]]:
    from amnesis_evaluation.metrics.recovery import Recovery
    from amnesis_evaluation.reports.comparison import mean_and_error, pareto_front
    from amnesis_evaluation.reports.tables import Number, Table

    forgetting, retention = sides
    points = [(group.mean(forgetting), group.mean(retention)) for group in groups]
    measures = [Recovery()] + ([Recovery(chance=chance)] if chance else [])
    recovery_columns = [f"{measure.key} of {retention}" for measure in measures]
    rows = []
    for group, best in zip(groups, pareto_front(points), strict=True):
        cells = [Number(*mean_and_error(group.values_of(name))) for name in columns]
        cells += [Number(*mean_and_error(_recoveries(group, retention, m))) for m in measures]
        rows.append([group.name, str(len(group.runs)), "★" if best else "", *cells])
    title = f"★ on the Pareto front of {forgetting} (low) against {retention} (high)"
    notes = []
    for name in sides:
        incomplete = [group.name for group in groups if not group.values_of(name)]
        if incomplete:
            beginning = (
                "no run has"
                if len(incomplete) == len(groups)
                else f"{', '.join(incomplete)}: without"
            )
            notes.append(
                f"{beginning} {name!r}, which the front needs; name metrics that all runs "
                f"have with --forgetting and --retention"
            )
    return Table(title, ["run", "seeds", "front", *columns, *recovery_columns], rows), notes


def _recoveries(group: Group, metric: str, measure: ChangeMetric) -> list[float]:
    return [
        measure.value(run.before[metric], run.values[metric])
        for run in group.runs
        if metric in run.before and metric in run.values
    ]


def _at_equal(
    groups: Sequence[Group], target: Target, columns: Sequence[str]
) -> tuple[Table, list[str]]:
    from amnesis.errors import DataError
    from amnesis_evaluation.reports.comparison import at_target, mean_and_error
    from amnesis_evaluation.reports.tables import Number, Table

    rows: list[list[Cell]] = []
    notes = []
    gaps: dict[str, int] = {}  # by metric: the runs that do not have it at the target
    run_count = 0
    for group in groups:
        steps: list[float] = []
        values_at: dict[str, list[float]] = {name: [] for name in columns}
        for run in group.runs:
            try:
                step, values = at_target(run, target, columns)
            except DataError as error:
                notes.append(str(error))
                continue
            steps.append(step)
            for name in columns:
                if name in values:
                    values_at[name].append(values[name])
                elif name in run.values:
                    gaps[name] = gaps.get(name, 0) + 1
        run_count += len(steps)
        cells = [Number(*mean_and_error(values_at[name])) for name in columns]
        share = f"{len(steps)}/{len(group.runs)}"
        rows.append([group.name, share, Number(*mean_and_error(steps), digits=1), *cells])
    if gaps:
        metrics = ", ".join(
            name if count == run_count else f"{name} (in {count} of {run_count} runs)"
            for name, count in gaps.items()
        )
        notes.append(
            f"not evaluated around that step, and so not known there: {metrics}; evaluate them "
            f"while a run goes on (evaluate.every, evaluate.during)"
        )
    title = f"At {target.metric} = {target.value:g}, interpolated along the trajectories"
    return Table(title, ["run", "reached", "steps", *columns], rows), notes
