"""The tables of a comparison: the methods beside each other, at equal forgetting, or in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amnesis_evaluation.commands.compare.shown import Shown

if TYPE_CHECKING:
    from amnesis_evaluation.reports.comparison import Group
    from amnesis_evaluation.reports.equal_forgetting import Target
    from amnesis_evaluation.reports.pairs import Pair
    from amnesis_evaluation.reports.tables import Cell, Table


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
    from amnesis_evaluation.reports.comparison import mean_and_error
    from amnesis_evaluation.reports.front import placed
    from amnesis_evaluation.reports.tables import Number, Table

    forgetting, retention = sides
    places = placed(groups, forgetting, retention)
    recoveries = recoveries_of(groups, retention, chance)
    rows = []
    for index, (group, place) in enumerate(zip(groups, places, strict=True)):
        cells = [Number(*mean_and_error(group.values_of(name))) for name in columns]
        cells += [Number(*mean_and_error(values[index])) for values in recoveries.values()]
        rows.append([group.name, str(len(group.runs)), "★" if place.on_front else "", *cells])
    title = f"★ on the Pareto front of {forgetting} (low) against {retention} (high)"
    notes = [
        f"{place.group.name} forgot nothing by {forgetting}, and is on no front"
        for place in places
        if place.idle
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
    table = Table(title, ["run", "seeds", "front", *columns, *recoveries], rows)
    tested, untested = tested_pairs(groups, list(dict.fromkeys([*sides, *columns])))
    if pairs:
        table = _pairs_table(groups, tested)
    sentences = [pair.sentence(*sides) for pair in tested]
    return Shown(table, notes + untested, tested, sentences)


def recoveries_of(
    groups: Sequence[Group], metric: str, chance: float | None
) -> dict[str, list[list[float]]]:
    """Return how much of a metric is left of its value before, of each run of each group.

    They are by the name of the column: plain, and above the level of ``chance`` where that is one.
    """
    from amnesis_evaluation.metrics.recovery import Recovery

    return {
        f"{measure.key} of {metric}": [
            [
                measure.value(run.before[metric], run.values[metric])
                for run in group.runs
                if metric in run.before and metric in run.values
            ]
            for group in groups
        ]
        for measure in [Recovery()] + ([Recovery(chance=chance)] if chance else [])
    }


def at_equal(groups: Sequence[Group], target: Target, columns: Sequence[str]) -> Shown:
    """Return the groups where they first reach the target, with the other metrics there."""
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


def tested_pairs(groups: Sequence[Group], metrics: Sequence[str]) -> tuple[list[Pair], list[str]]:
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
    title = (
        "Differences, paired by row: each with p and 95 % interval alone, and with p after Holm's "
        "correction for all metrics of its pair"
    )
    return Table(title, [*columns, "rows", "groups"], rows)
