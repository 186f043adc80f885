"""What was evaluated, for a terminal or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amnesis.contracts import Evaluation
    from amnesis.runs.results import Results


def show(evaluation: Evaluation, results: Results, as_json: bool) -> None:
    """Print an evaluation: the verdict and a table, or all as JSON."""
    from rich.table import Table
    from rich.text import Text

    from amnesis.cli import console, print_notes, print_verdict
    from amnesis_evaluation.reports.tables import Number

    if as_json:
        document = {
            "values": evaluation.values,
            "intervals": evaluation.intervals,
            "notes": evaluation.notes,
            "verdict": results.document().get("verdict"),
        }
        print(json.dumps(document, indent=1, ensure_ascii=False))
        return
    print_verdict(results.verdict)
    table = Table("metric", "value", "interval")
    for key, value in evaluation.values.items():
        interval = " – ".join(str(Number(end)) for end in evaluation.intervals.get(key, ()))
        table.add_row(Text(key), str(Number(value)), interval)
    console().print(table)
    print_notes(evaluation.notes)


def show_log(log: Path, retain_log: Path | None, as_json: bool) -> None:
    """Print what an original TOFU log says, in each of the conventions."""
    from rich.table import Table

    from amnesis.cli import console, print_notes
    from amnesis_evaluation.reports.tofu_log import CONVENTIONS, evaluated_log

    evaluation = evaluated_log(log, retain_log)
    if as_json:
        print(json.dumps(evaluation, indent=1))
        return
    table = Table("part", *CONVENTIONS)
    for key in evaluation[CONVENTIONS[0]]:
        table.add_row(key, *(f"{evaluation[name][key]:.6g}" for name in CONVENTIONS))
    console().print(table)
    print_notes(evaluation["notes"])
