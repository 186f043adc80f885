"""Tables that are shown in a terminal, or written as Markdown, CSV or LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from amnesis.errors import printable

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

Format = Literal["table", "markdown", "csv", "latex"]

_COLUMN_GAP = 3  # characters that rich puts between two columns


@dataclass(frozen=True)
class Number:
    """A mean and, of several values, its standard error; NaN stands for a missing value."""

    mean: float
    error: float | None = None
    digits: int = 3

    def __str__(self) -> str:
        """Return the number with ``digits`` decimals, or 3 significant digits if tiny or huge."""
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
    """A title, the names of the columns, and rows; the first cell of a row is its name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def rich(self, width: int) -> list[RichTable]:
        """Return the table transposed, for a terminal of ``width`` characters.

        Each row becomes a column; those that do not fit beside each other follow in further tables.
        """
        label = min(max(map(len, self.columns)), max(12, width * 3 // 8))
        bands: list[list[tuple[Sequence[Cell], int]]] = []
        room = 0
        for row in self.rows:
            words = max(map(len, str(row[0]).split()), default=1)
            size = max([min(words, width // 4), *(len(str(cell)) for cell in row[1:])])
            if not bands or size + _COLUMN_GAP > room:
                bands.append([])
                room = width - label
            bands[-1].append((row, size))
            room -= size + _COLUMN_GAP
        return [self._band(band, label) for band in bands]

    def upright(self) -> RichTable:
        """Return the table as it stands, for a terminal; no number is broken."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable

        table = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name in self.columns:
            table.add_column(_text(name), overflow="fold")
        for column, cells in zip(table.columns, zip(*self.rows, strict=True), strict=False):
            column.no_wrap = any(isinstance(cell, Number) for cell in cells)
        for row in self.rows:
            table.add_row(*map(_text, row))
        return table

    def _band(self, band: Sequence[tuple[Sequence[Cell], int]], label: int) -> RichTable:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable

        table = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        table.add_column(_text(self.columns[0]), max_width=label, overflow="fold")
        for row, size in band:
            table.add_column(_text(row[0]), justify="right", max_width=size, overflow="fold")
        for index, name in enumerate(self.columns[1:], start=1):
            table.add_row(_text(name), *(_text(row[index]) for row, _ in band))
        return table

    def markdown(self) -> str:
        """Return the table in GitHub's flavour of Markdown."""
        lines = [self.columns, ["---"] + ["---:"] * (len(self.columns) - 1), *self.rows]
        cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
        return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"

    def csv(self) -> str:
        """Return comma-separated values with a header.

        Numbers have all their digits; standard errors are in columns named ``± …``.
        """
        buffer = io.StringIO()
        plain, quoted = (
            csv.writer(buffer, lineterminator="\n", quoting=how)
            for how in (csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC)
        )
        for line in self._lines():
            cells = [_unexecuted(cell) for cell in line]
            # A lone carriage return ends a line for who reads, and Python quotes it since 3.13.
            is_broken = any(isinstance(cell, str) and "\r" in cell for cell in cells)
            (quoted if is_broken else plain).writerow(cells)
        return buffer.getvalue()

    def records(self) -> list[dict[str, Any]]:
        """Return the rows by column, as in the CSV; a missing value is None."""
        names, *lines = self._lines()
        return [
            {name: None if cell == "" else cell for name, cell in zip(names, line, strict=True)}
            for line in lines
        ]

    def _lines(self) -> list[list[Any]]:
        lines: list[list[Any]] = [[] for _ in range(len(self.rows) + 1)]
        for name, *cells in zip(self.columns, *self.rows, strict=True):
            for line, cell in zip(lines, (name, *cells), strict=True):
                line.append(_value(cell.mean) if isinstance(cell, Number) else cell)
            errors = [cell.error if isinstance(cell, Number) else None for cell in cells]
            if any(error is not None for error in errors):
                for line, entry in zip(lines, (f"± {name}", *map(_value, errors)), strict=True):
                    line.append(entry)
        return lines

    def latex(self) -> str:
        """Return a LaTeX ``tabular`` with the rules of booktabs."""
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
        """Return the table as text; ``form`` is markdown, csv or latex."""
        writers: dict[str, Callable[[], str]] = {
            "markdown": self.markdown,
            "csv": self.csv,
            "latex": self.latex,
        }
        return writers[form]()


def _text(cell: Cell) -> Text:
    """Return a cell for the terminal: no markup, for names may look like it, no control codes."""
    from rich.text import Text

    return Text(printable(str(cell)))


def _unexecuted(cell: float | str) -> float | str:
    """Return a cell that no spreadsheet takes for a formula."""
    formula = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if formula else cell


def _value(number: float | None) -> float | str:
    return "" if number is None or math.isnan(number) else number


_LATEX_ESCAPES = {
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
    return "".join(_LATEX_ESCAPES.get(character, character) for character in text)
