"""``amnesis compare``: runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from amnesis.contracts import ChangeMetric
    from amnesis_evaluation.comparison import Group, Target
    from amnesis_evaluation.tables import Format, Table

FORMATS = ("table", "markdown", "csv", "latex")


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs or evaluations.")],
    metric: Annotated[
        list[str] | None, typer.Option(help="A column, such as forget/probability; repeatable.")
    ] = None,
    forgetting: Annotated[
        str, typer.Option(help="The front's first side; lower is better.")
    ] = "forget/probability",
    retention: Annotated[
        str, typer.Option(help="The front's other side; higher is better.")
    ] = "retain/probability",
    at: Annotated[
        str | None, typer.Option(help="Compare at equal forgetting: forget/probability=0.1.")
    ] = None,
    chance: Annotated[
        float | None,
        typer.Option(min=0, max=0.999, help="Chance level of the retention metric."),
    ] = None,
    form: Annotated[str, typer.Option("--format", help="table, markdown, csv or latex.")] = "table",
) -> None:
    """Lay runs out in one table: seeds as mean ± standard error, the Pareto front marked."""
    from rich.console import Console

    from amnesis.errors import RecipeError, did_you_mean
    from amnesis_evaluation.comparison import Run, Target, grouped

    if form not in FORMATS:
        raise RecipeError(f"--format {form!r} is none; {did_you_mean(form, FORMATS)}")
    target = None if at is None else Target.parse(at)
    groups = grouped([Run.load(folder) for folder in folders])
    if target is None:
        columns = _columns(groups, metric)
        table = _side_by_side(groups, columns, forgetting, retention, chance)
        notes: list[str] = []
    else:
        columns = [c for c in _columns(groups, metric) if c != target.metric]
        table, notes = _at_equal(groups, target, columns)
    if form == "table":
        Console().print(table.rich())
    else:
        print(table.written(_format(form)), end="")
    for note in notes:
        Console(stderr=True).print(f"note: {note}", highlight=False, soft_wrap=True)


def _format(form: str) -> Format:
    return form  # type: ignore[return-value]  # one of FORMATS


def _columns(groups: Sequence[Group], asked: Sequence[str] | None) -> list[str]:
    from amnesis.errors import RecipeError, did_you_mean

    known = dict.fromkeys(key for group in groups for run in group.runs for key in run.values)
    for name in asked or ():
        if name not in known:
            raise RecipeError(f"--metric: no run has {name!r}; {did_you_mean(name, known)}")
    return list(asked) if asked else list(known)


def _side_by_side(
    groups: Sequence[Group],
    columns: Sequence[str],
    forgetting: str,
    retention: str,
    chance: float | None,
) -> Table:
    from amnesis_evaluation.comparison import mean_and_error, pareto_front
    from amnesis_evaluation.metrics.recovery import Recovery
    from amnesis_evaluation.tables import Table

    front = pareto_front([(g.mean(forgetting), g.mean(retention)) for g in groups])
    measures = [Recovery()] + ([Recovery(chance=chance)] if chance else [])
    recovered = [f"{measure.key} of {retention}" for measure in measures]
    rows = []
    for group, best in zip(groups, front, strict=True):
        cells = [_cell(*mean_and_error(group.values_of(name))) for name in columns]
        cells += [_cell(*mean_and_error(_recoveries(group, retention, m))) for m in measures]
        rows.append([group.name, str(len(group.runs)), "★" if best else "", *cells])
    return Table(
        f"★ on the Pareto front of {forgetting} (low) against {retention} (high)",
        ["run", "seeds", "front", *columns, *recovered],
        rows,
    )


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
    from amnesis_evaluation.comparison import at_target, mean_and_error
    from amnesis_evaluation.tables import Table

    rows, notes = [], []
    for group in groups:
        steps: list[float] = []
        there: dict[str, list[float]] = {name: [] for name in columns}
        for run in group.runs:
            try:
                step, values = at_target(run, target, columns)
            except DataError as error:
                notes.append(str(error))
                continue
            steps.append(step)
            for name, value in values.items():
                there[name].append(value)
        cells = [_cell(*mean_and_error(there[name])) for name in columns]
        reached = f"{len(steps)}/{len(group.runs)}"
        rows.append([group.name, reached, _cell(*mean_and_error(steps), digits=1), *cells])
    title = f"At {target.metric} = {target.value:g}, interpolated along the trajectories"
    return Table(title, ["run", "reached", "steps", *columns], rows), notes


def _cell(mean: float, error: float | None, digits: int = 3) -> str:
    if mean != mean:
        return "–"
    spread = "" if error is None else f" ± {error:.{digits}f}"
    return f"{mean:.{digits}f}{spread}"
