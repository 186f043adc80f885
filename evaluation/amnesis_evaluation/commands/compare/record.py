"""What a comparison found, as plain values: all numbers of its page are in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from amnesis_evaluation.commands.compare.shown import Shown
from amnesis_evaluation.commands.compare.tables import recoveries_of
from amnesis_evaluation.reports.comparison import Group, Run, mean_and_error
from amnesis_evaluation.reports.front import placed
from amnesis_evaluation.reports.tables import Number

if TYPE_CHECKING:
    from amnesis.runs.results import Phase
    from amnesis_evaluation.reports.tables import Table

SCHEMA = "1"


def record_of(
    groups: Sequence[Group],
    columns: Sequence[str],
    sides: tuple[str, str],
    chance: float | None,
    shown: Shown,
    equal: Shown | None = None,
) -> dict[str, Any]:
    """Return the methods with their runs, their places by the two ``sides``, and the tests.

    ``shown`` is what is shown of the ends of the runs, ``equal`` of them at equal forgetting.
    """
    recoveries = recoveries_of(groups, sides[1], chance)
    names = list(dict.fromkeys([*sides, *columns]))
    methods = [
        {
            "number": number,
            "name": place.group.name,
            "on_front": place.on_front,
            "forgot_nothing": place.idle,
            "why": place.why,
            "values": {
                name: _value(place.group, name) for name in names if place.group.values_of(name)
            },
            "recovery": {
                name: _summary(values[number - 1])
                for name, values in recoveries.items()
                if values[number - 1]
            },
            "runs": [_run(run) for run in place.group.runs],
        }
        for number, place in enumerate(placed(groups, *sides), start=1)
    ]
    document = shown.document([note for group in groups for note in group.notes])
    return {
        "schema": SCHEMA,
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "front": {"forgetting": sides[0], "retention": sides[1]},
        "methods": methods,
        **{phase: _points(groups, phase, sides) for phase in ("before", "retrained")},
        "equal": None if equal is None else _table(equal.table),
        "pairs": document["pairs"],
        "notes": document["notes"] + ([] if equal is None else equal.notes),
    }


def _table(table: Table) -> dict[str, Any]:
    rows = [
        [_cell(cell) if isinstance(cell, Number) else cell for cell in row] for row in table.rows
    ]
    return {"title": table.title, "columns": list(table.columns), "rows": rows}


def _cell(number: Number) -> dict[str, Any] | None:
    if math.isnan(number.mean):
        return None
    return {"mean": number.mean, **({} if number.error is None else {"error": number.error})}


def _value(group: Group, name: str) -> dict[str, Any]:
    """Return a metric's mean and standard error; of one run, its interval over rows."""
    value = _summary(group.values_of(name))
    if len(group.runs) == 1:
        ends = group.runs[0].results.intervals.get("after", {}).get(name)
        value |= {} if ends is None else {"interval": list(ends)}
    return value


def _summary(values: Sequence[float]) -> dict[str, Any]:
    mean, error = mean_and_error(values)
    return {
        "mean": mean if math.isfinite(mean) else None,
        **({} if error is None or not math.isfinite(error) else {"error": error}),
    }


def _run(run: Run) -> dict[str, Any]:
    results = run.results
    verdict = results.verdict
    return {
        "folder": str(run.folder),
        "seed": run.seed,
        "steps": results.steps,
        "seconds": results.seconds,
        "finished": results.finished,
        "goal_reached": None if results.goal is None else results.goal.reached,
        "forgetting": None if verdict is None else verdict.forgetting,
        "retention": None if verdict is None else verdict.retention,
        "verdict": None if verdict is None else verdict.sentence,
        "values": dict(run.values),
    }


def _points(groups: Sequence[Group], phase: Phase, sides: tuple[str, str]) -> list[dict[str, Any]]:
    """Return the distinct values of a phase by the two sides, with the methods that have them."""
    points: dict[tuple[float, float], list[str]] = {}
    for group in groups:
        for run in group.runs:
            values = run.results.phases().get(phase, {})
            if all(name in values for name in sides):
                owners = points.setdefault((values[sides[0]], values[sides[1]]), [])
                if group.name not in owners:
                    owners.append(group.name)
    return [
        {"forgetting": x, "retention": y, "methods": owners} for (x, y), owners in points.items()
    ]
