"""``amnesis compare``: several runs in one table."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from amnesis.cli.terminal import AsJson

if TYPE_CHECKING:
    from amnesis.contracts import ChangeMetric
    from amnesis_evaluation.reports.comparison import Group
    from amnesis_evaluation.reports.equal_forgetting import Target
    from amnesis_evaluation.reports.pairs import Pair
    from amnesis_evaluation.reports.tables import Cell, Format, Table

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
    as_json: AsJson = False,
) -> None:
    """Show runs in one table: seeds as mean ± standard error, the Pareto front marked.

    Of every two methods a sentence says whether one is better: it forgets more or retains more, and
    does neither less, by a paired bootstrap over rows (over groups, where rows name one) and seeds,
    after Holm's correction for the metrics shown, as far as these are means over rows. It reads the
    runs' examples.parquet.
    """
    from amnesis.errors import RecipeError, did_you_mean
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
    if target is not None:
        columns = [name for name in columns if name != target.metric]
        shown = _at_equal(groups, target, columns)
    else:
        front = (forgetting or "forget/probability", retention or "retain/probability")
        shown = side_by_side(groups, columns, front, chance, pairs=pairs)
    show(shown, [note for group in groups for note in group.notes], form)


def _check_alone(options: Mapping[str, object]) -> None:
    from amnesis.errors import RecipeError

    for option, value in options.items():
        if value is not None:
            raise RecipeError(
                f"{option} does not go with --at, which shows no front, no recovery and no tests; "
                f"leave one of them out"
            )


@dataclass(frozen=True)
class Shown:
    """A table, what is to be noted of it, and of every two methods the test and its sentence."""

    table: Table
    notes: list[str]
    pairs: Sequence[Pair] = ()
    sentences: Sequence[str] = ()

    def document(self, notes: Sequence[str]) -> dict[str, Any]:
        """Return everything, and further notes, as plain values."""
        return {
            "title": self.table.title,
            "rows": self.table.records(),
            "pairs": [
                {
                    "left": pair.left.name,
                    "right": pair.right.name,
                    "sentence": sentence,
                    "differences": [asdict(one) for one in pair.differences],
                }
                for pair, sentence in zip(self.pairs, self.sentences, strict=True)
            ],
            "notes": [*notes, *self.notes],
        }


def show(shown: Shown, notes: Sequence[str], form: str) -> None:
    """Print what is shown; in the forms for other programs the sentences are notes."""
    from amnesis.cli import console
    from amnesis.cli.terminal import is_warning, sorted_notes
    from amnesis.progress import is_quiet

    if form == "json":
        print(json.dumps(shown.document(notes), indent=2, ensure_ascii=False))
        return
    if form == "table":
        plain = console()
        print(shown.table.title)
        for part in shown.table.rich(plain.width):
            print()
            plain.print(part)
        if shown.sentences:
            print("", *shown.sentences, sep="\n")
    else:
        print(shown.table.written(cast("Format", form)), end="")
    if is_quiet():
        return
    said = [*notes, *shown.notes, *(() if form == "table" else shown.sentences)]
    for note in sorted_notes(said):
        print(f"{'warning' if is_warning(note) else 'note'}: {note}", file=sys.stderr)


def side_by_side(
    groups: Sequence[Group],
    columns: Sequence[str],
    sides: tuple[str, str],
    chance: float | None,
    *,
    pairs: bool,
) -> Shown:
    """Return the groups beside each other, with the front of the two ``sides``, low and high.

    ``chance`` is the retention metric's; ``pairs`` shows every two groups in place of the groups.
    """
    from amnesis_evaluation.metrics.recovery import Recovery
    from amnesis_evaluation.reports.comparison import forgot_nothing, mean_and_error, pareto_front
    from amnesis_evaluation.reports.tables import Number, Table

    forgetting, retention = sides
    idle = [all(forgot_nothing(run.results, forgetting) for run in g.runs) for g in groups]
    points = [
        (math.nan if nothing else group.mean(forgetting), group.mean(retention))
        for group, nothing in zip(groups, idle, strict=True)
    ]
    measures = [Recovery()] + ([Recovery(chance=chance)] if chance else [])
    recovery_columns = [f"{measure.key} of {retention}" for measure in measures]
    rows = []
    for group, best in zip(groups, pareto_front(points), strict=True):
        cells = [Number(*mean_and_error(group.values_of(name))) for name in columns]
        cells += [Number(*mean_and_error(_recoveries(group, retention, m))) for m in measures]
        rows.append([group.name, str(len(group.runs)), "★" if best else "", *cells])
    title = f"★ on the Pareto front of {forgetting} (low) against {retention} (high)"
    notes = [
        f"{group.name} forgot nothing by {forgetting}, and is on no front"
        for group, nothing in zip(groups, idle, strict=True)
        if nothing
    ]
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
    table = Table(title, ["run", "seeds", "front", *columns, *recovery_columns], rows)
    tested, untested = _tested_pairs(groups, list(dict.fromkeys([*sides, *columns])))
    if pairs:
        table = _pairs_table(groups, tested)
    sentences = [pair.sentence(*sides) for pair in tested]
    return Shown(table, notes + untested, tested, sentences)


def _recoveries(group: Group, metric: str, measure: ChangeMetric) -> list[float]:
    return [
        measure.value(run.before[metric], run.values[metric])
        for run in group.runs
        if metric in run.before and metric in run.values
    ]


def _at_equal(groups: Sequence[Group], target: Target, columns: Sequence[str]) -> Shown:
    from amnesis_evaluation.reports.comparison import mean_and_error
    from amnesis_evaluation.reports.equal_forgetting import NotReachedError, at_target
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
                reached = at_target(run, target, columns)
            except NotReachedError as error:
                notes.append(str(error))
                continue
            if len(reached.crossings) > 1:
                times = ", ".join(f"{step:.4g}" for step in reached.crossings)
                notes.append(
                    f"{run.folder}: goes through {target.metric} = {target.value:g} at the steps "
                    f"{times}; shown at the first of them"
                )
            steps.append(reached.step)
            for name in columns:
                if name in reached.values:
                    values_at[name].append(reached.values[name])
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
    title = f"At {target}, interpolated along the trajectories"
    return Shown(Table(title, ["run", "reached", "steps", *columns], rows), notes)


def _tested_pairs(groups: Sequence[Group], metrics: Sequence[str]) -> tuple[list[Pair], list[str]]:
    """Return every two methods that can be tested, and what keeps others from it."""
    from amnesis_evaluation.reports.pairs import compared_pairs, missing_examples

    if len(groups) < 2:
        return [], []
    if missing := missing_examples(groups):
        return [], [
            f"which is better is not tested: without examples.parquet, the values of each row, in "
            f"{', '.join(missing)}"
        ]
    pairs = compared_pairs(groups, metrics)
    return pairs, list(dict.fromkeys(note for pair in pairs for note in pair.notes))


def _pairs_table(groups: Sequence[Group], pairs: Sequence[Pair]) -> Table:
    from amnesis.errors import DataError
    from amnesis_evaluation.reports.tables import Number, Table

    if not any(pair.differences for pair in pairs):
        folders = ", ".join(str(run.folder) for group in groups for run in group.runs)
        raise DataError(
            f"--pairs: no two of {folders} can be compared row by row; give "
            f"runs of different methods with their examples.parquet, evaluated on the same rows"
        )
    columns = ["metric", "run", "against", "difference", "low", "high", "p", "p (Holm)"]
    rows: list[list[Cell]] = [
        [
            one.metric,
            pair.left.name,
            pair.right.name,
            *(Number(x) for x in (one.value, *one.interval, one.p, one.p_holm)),
            str(one.rows),
            str(one.units),
        ]
        for pair in pairs
        for one in pair.differences
    ]
    title = "Differences, paired by row, with 95 % intervals; p after Holm's correction per pair"
    return Table(title, [*columns, "rows", "groups"], rows)
