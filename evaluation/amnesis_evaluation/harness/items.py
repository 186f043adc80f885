"""Multiple-choice items from local files, in MMLU's original layout or in the hub's schema."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from amnesis.data.files import read_rows
from amnesis.errors import DataError

# Not the text "ABCD": "AB" would be in it.
_LETTERS = ("A", "B", "C", "D")


def read_items(path: Path) -> list[dict[str, Any]]:
    """Return the items of a file of rows, or of a CSV without a header in MMLU's original layout.

    The columns of that layout are question, A, B, C, D and the letter of the answer. Where items
    have ``choices``, their ``answer`` must be the index of one.

    Raises:
        DataError: the file cannot be read, or an item's answer is not one of its choices.
    """
    items = _original(path) if path.suffix.lower() == ".csv" and path.is_file() else None
    if items is None:
        items = read_rows(path)
    for index, item in enumerate(items):
        choices, answer = item.get("choices"), item.get("answer")
        if choices is None:
            continue
        if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices):
            raise DataError(f"{path}: item {index}: choices must be a list of texts")
        if isinstance(answer, bool) or not isinstance(answer, int):
            raise DataError(
                f"{path}: item {index}: answer must be the index of a choice, but is {answer!r}"
            )
        if not 0 <= answer < len(choices):
            raise DataError(
                f"{path}: item {index}: answer is {answer}, but there are {len(choices)} choices"
            )
    return items


def _original(path: Path) -> list[dict[str, Any]] | None:
    """Return the items of MMLU's original layout; None if the first row is not of that layout."""
    lines = _lines(path)
    if not lines or not _may_be_original(lines[0][1]):
        return None
    items: list[dict[str, Any]] = []
    for number, cells in lines:
        letter = cells[-1].strip()
        if len(cells) != 6 or letter not in _LETTERS:
            raise DataError(
                f"{path}:{number}: not question, A, B, C, D and one letter of "
                f"{''.join(_LETTERS)}: {len(cells)} cells, the last {cells[-1]!r}"
            )
        question, *choices, _ = cells
        answer = _LETTERS.index(letter)
        items.append({"question": question, "choices": choices, "answer": answer})
    return items


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the line number and the cells of each row, without empty ones."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}") from None
    except csv.Error as error:
        raise DataError(f"{path}: not CSV: {error}") from None
    # Spreadsheets leave rows of empty cells at the end. Elsewhere such a row may be a lost item.
    while lines and not any(cell.strip() for cell in lines[-1][1]):
        lines.pop()
    return lines


def _may_be_original(cells: list[str]) -> bool:
    """Return whether a first row is an item, even one with a wrong letter, rather than a header."""
    letters = cells[-1].strip() if len(cells) == 6 else ""
    return bool(letters) and set(letters) <= set(_LETTERS)
