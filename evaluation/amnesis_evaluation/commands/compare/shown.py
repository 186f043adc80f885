"""What a comparison shows: a table, what is to be noted of it, and every two methods' test."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from amnesis_evaluation.reports.pairs import Pair
    from amnesis_evaluation.reports.tables import Format, Table


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
