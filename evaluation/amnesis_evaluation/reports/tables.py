"""Tables: one content, shown in a terminal, or written as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Format = Literal["table", "markdown", "csv", "latex"]

_GAP = 3  # columns of a terminal between two of a table


@dataclass(frozen=True)
class Number:
    """A mean and, of several values, its standard error; not a number where there is none."""

    mean: float
    error: float | None = None
    digits: int = 3

    def __str__(self) -> str:
        """Return it in few digits, none of which hides a small value."""
        if math.isnan(self.mean):
            return "–"
        spread = "" if self.error is None else f" ± {self._short(self.error)}"
        return f"{self._short(self.mean)}{spread}"

    def _short(self, value: float) -> str:
        fits = value == 0 or 10**-self.digits <= abs(value) < 1e6
        return f"{value:.{self.digits}f}" if fits else f"{value:.3g}"


Cell = str | Number


@dataclass(frozen=True)
class Table:
    """A title, the columns' names, and rows that begin with their own."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def rich(self, width: int) -> list[RichTable]:
        """Return it for a terminal, turned round: a line for each column.

        Rows that do not fit beside each other go on in further tables, whole.
        """
        label = min(max(map(len, self.columns)), max(12, width * 3 // 8))
        bands: list[list[tuple[Sequence[Cell], int]]] = []
        left = 0
        for row in self.rows:
            words = max(map(len, str(row[0]).split()), default=1)
            wide = max([min(words, width // 4), *(len(str(cell)) for cell in row[1:])])
            if not bands or wide + _GAP > left:
                bands.append([])
                left = width - label
            bands[-1].append((row, wide))
            left -= wide + _GAP
        return [self._band(band, label) for band in bands]

    def _band(self, band: Sequence[tuple[Sequence[Cell], int]], label: int) -> RichTable:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable
        from rich.text import Text

        # Text, since names of folders and metrics may look like rich's markup.
        made = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        made.add_column(Text(self.columns[0]), max_width=label, overflow="fold")
        for row, wide in band:
            made.add_column(Text(str(row[0])), justify="right", max_width=wide, overflow="fold")
        for index, name in enumerate(self.columns[1:], start=1):
            made.add_row(Text(name), *(Text(str(row[index])) for row, _ in band))
        return made

    def markdown(self) -> str:
        """Return a table as GitHub reads it."""
        lines = [self.columns, ["---"] + ["---:"] * (len(self.columns) - 1), *self.rows]
        cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
        return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"

    def csv(self) -> str:
        """Return comma-separated values with a header: every digit, and errors in columns ``± …``."""
        lines: list[list[Any]] = [[] for _ in range(len(self.rows) + 1)]
        for name, *cells in zip(self.columns, *self.rows, strict=True):
            for line, cell in zip(lines, (name, *cells), strict=True):
                line.append(_value(cell.mean) if isinstance(cell, Number) else cell)
            errors = [cell.error if isinstance(cell, Number) else None for cell in cells]
            if any(error is not None for error in errors):
                for line, said in zip(lines, (f"± {name}", *map(_value, errors)), strict=True):
                    line.append(said)
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerows(lines)
        return written.getvalue()

    def latex(self) -> str:
        """Return a ``tabular`` with booktabs' rules."""
        lines = [
            " & ".join(_tex(str(cell)) for cell in row) + r" \\"
            for row in (self.columns, *self.rows)
        ]
        layout = "l" + "r" * (len(self.columns) - 1)
        head, body = lines[0], "\n".join(lines[1:])
        return (
            f"\\begin{{tabular}}{{{layout}}}\n\\toprule\n{head}\n\\midrule\n{body}\n"
            f"\\bottomrule\n\\end{{tabular}}\n"
        )

    def written(self, form: Format) -> str:
        """Return the table as text in one of the forms that are."""
        writers: dict[str, Callable[[], str]] = {
            "markdown": self.markdown,
            "csv": self.csv,
            "latex": self.latex,
        }
        return writers[form]()


def _value(number: float | None) -> float | str:
    return "" if number is None or math.isnan(number) else number


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "★": r"$\star$",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)
