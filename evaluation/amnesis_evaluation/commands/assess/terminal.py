"""What an assessment tells in a terminal; of the texts themselves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from amnesis.cli import console, print_notes
from amnesis.errors import printable
from amnesis_evaluation.commands.assess.knowledge import shown_values
from amnesis_evaluation.reports.tables import Number

if TYPE_CHECKING:
    from amnesis_evaluation.commands.assess.record import (
        Assessment,
        Candidates,
        Knowledge,
        Methods,
        Overlap,
    )

PAIRS, CANDIDATES = 8, 20  # that are named


def show(record: Assessment) -> None:
    """Print an assessment: each question's answer in a sentence, then the numbers."""
    plain = console()
    plain.print(record.knowledge.sentence, style="bold", soft_wrap=True)
    plain.print(_measures(record.knowledge))
    if record.alignment is not None:
        plain.print(record.alignment.sentence, soft_wrap=True)
    if record.overlap is not None:
        plain.print(record.overlap.sentence, soft_wrap=True)
        for line in _pairs(record.overlap):
            plain.print(line, soft_wrap=True)
    notes = list(record.notes)
    if record.methods is not None:
        plain.print(record.methods.sentence, soft_wrap=True)
        plain.print(_ranking(record.methods))
        notes += [
            f"{name} did not get as far as the others, and is not ranked"
            for name in record.methods.not_reached
        ]
        notes += [f"{name} is left out: {reason}" for name, reason in record.methods.failed.items()]
    print_notes(notes)


def show_candidates(record: Candidates) -> None:
    """Print the passages that a model gives back, by where they stand."""
    console().print(record.sentence, style="bold", soft_wrap=True)
    if record.candidates:
        table = Table("place", "extraction strength", "probability", "personal data")
        for one in record.candidates[:CANDIDATES]:
            table.add_row(
                Text(printable(f"{one.file}:{one.place}")),
                str(Number(one.extraction_strength)),
                str(Number(one.probability)),
                Text(", ".join(one.kinds)),
            )
        rest = len(record.candidates) - CANDIDATES
        table.caption = f"and {rest} more" if rest > 0 else None
        console().print(table)
    print_notes(record.notes)


def _measures(knowledge: Knowledge) -> Table:
    table = Table("measure", "value", "interval")
    for name, value in shown_values(knowledge).items():
        ends = knowledge.intervals.get(name, ())
        table.add_row(Text(name), str(Number(value)), " – ".join(str(Number(e)) for e in ends))
    return table


def _ranking(methods: Methods) -> Table:
    table = Table("candidate", "damage per forgetting", "retain probability", "steps")
    for one in methods.ranking:
        table.add_row(
            Text(printable(" = ".join(one.names))),
            "–" if one.ratio is None else f"{one.ratio:.4f}",
            str(Number(one.retain_probability)),
            f"{one.steps:.1f}",
        )
    return table


def _pairs(overlap: Overlap) -> list[str]:
    lines = [
        f"  forget row {pair.forget} is retain row {pair.retain}" for pair in overlap.exact
    ] + [
        f"  forget row {pair.forget} is like retain row {pair.retain} ({pair.share:.0%})"
        for pair in overlap.near
    ]
    rest = len(lines) - PAIRS
    return [*lines[:PAIRS], *([f"  and {rest} more"] if rest > 0 else [])]
