"""``amnesis compare``: several runs in one table, and on one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from amnesis.cli.terminal import AsJson
from amnesis_evaluation.commands.compare.shown import show

FORMATS = ("table", "markdown", "csv", "latex", "json")


def compare(  # long for its options: each is a line of --help
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
        str | None,
        typer.Option(
            help="Compare at equal forgetting: forget/probability=0.1, or forget/perplexity>=20."
        ),
    ] = None,
    chance: Annotated[
        float | None,
        typer.Option(min=0, max=0.999, help="Chance level of the retention metric."),
    ] = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Every two runs, by each metric, instead of the runs.")
    ] = False,
    form: Annotated[
        str, typer.Option("--format", help="table, markdown, csv, latex or json.")
    ] = "table",
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and comparison.json.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier comparison.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show runs in one table: seeds as mean ± standard error, the Pareto front marked.

    Of every two methods a sentence says whether one is better: it forgets more or retains more, and
    does neither less, by a paired bootstrap over rows (over groups, where rows name one) and seeds,
    after Holm's correction for the metrics shown, as far as these are means over rows. It reads the
    runs' examples.parquet. With --out it is a page too, with a picture of the front.
    """
    from amnesis.cli import console
    from amnesis.errors import RecipeError, did_you_mean
    from amnesis_evaluation.commands.compare.page import check_page, write_page
    from amnesis_evaluation.commands.compare.record import record_of
    from amnesis_evaluation.commands.compare.tables import at_equal, side_by_side
    from amnesis_evaluation.reports.comparison import Run, grouped
    from amnesis_evaluation.reports.equal_forgetting import Target

    form = "json" if as_json else form
    if form not in FORMATS:
        raise RecipeError(f"--format {form!r} is none; {did_you_mean(form, FORMATS)}")
    target = None if at is None else Target.parse(at)
    sides = {"--forgetting": forgetting, "--retention": retention}
    if target is not None:
        _check_alone({**sides, "--chance": chance, "--pairs": pairs or None})
    groups = grouped([Run.load(folder) for folder in folders])
    available = dict.fromkeys(key for group in groups for run in group.runs for key in run.values)
    for option, names in {"--metric": metric, **sides}.items():
        for name in [names] if isinstance(names, str) else names or ():
            if name not in available:
                raise RecipeError(f"{option}: no run has {name!r}; {did_you_mean(name, available)}")
    columns = list(dict.fromkeys(metric or available))
    front = (forgetting or "forget/probability", retention or "retain/probability")
    if out is not None:
        check_page(out, folders, overwrite=overwrite)
    equal = None
    if target is not None:
        equal = at_equal(groups, target, [name for name in columns if name != target.metric])
    notes = [note for group in groups for note in group.notes]
    if equal is not None and out is None:
        show(equal, notes, form)
        return
    ends = side_by_side(groups, columns, front, chance, pairs=pairs)
    show(equal or ends, notes, form)
    if out is not None:
        place = write_page(record_of(groups, columns, front, chance, ends, equal), out)
        if form == "table":
            console().print(f"all of it, with a picture of the front: {place}", soft_wrap=True)


def _check_alone(options: Mapping[str, object]) -> None:
    from amnesis.errors import RecipeError

    for option, value in options.items():
        if value is not None:
            raise RecipeError(
                f"{option} does not go with --at, which shows no front, no recovery and no tests; "
                f"leave one of them out"
            )
