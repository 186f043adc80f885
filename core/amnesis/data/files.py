"""Rows from local files: JSON lines, JSON, CSV and Parquet; errors name file and line."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amnesis.errors import DataError, did_you_mean, first_line

Rows = list[dict[str, Any]]
_DELIMITERS = ",;\t"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_rows(path: Path) -> Rows:
    """Return the rows of a .jsonl, .json, .csv, .tsv or .parquet file.

    Both .json and .jsonl files may hold lines or one array: TOFU's ``.json`` files hold lines. A
    CSV cell that holds a JSON list becomes a list.

    Raises:
        DataError: the file is missing, empty or of another kind, or a line is not a row.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: rows are read from {', '.join(_READERS)} files, not from {path.suffix!r}; "
            f"{did_you_mean(path.suffix, _READERS)}"
        )
    if not path.exists():
        near = (
            [p.name for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else ()
        )
        raise DataError(f"{path}: there is no such file; {did_you_mean(path.name, near)}")
    if not path.is_file():
        raise DataError(f"{path}: is not a file that can be read to its end")
    try:
        rows = reader(path)
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: not UTF-8 text; if it is Latin-1, as spreadsheets on Windows write, "
            f"save it as UTF-8 (iconv -f LATIN1 -t UTF-8 {path.name} > utf8{path.suffix})"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or first_line(error)}") from error
    if not rows:
        raise DataError(f"{path}: holds no row")
    return rows


def _parse(text: str, where: str, line: int) -> Any:
    """Return a JSON value, refusing what would be dropped or cannot be written again."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{where}:{line}: the field {twice!r} stands twice in one object")
        return fields

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}:{line + error.lineno - 1}: not JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:  # nested too deep, a number of 5,000 digits
        raise DataError(f"{where}:{line}: not JSON that can be read: {first_line(error)}") from None
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{where}:{line}: holds half a character (a lone surrogate such as \\ud800), "
                f"which no text can; repair what wrote it"
            ) from None
    return value


def _json(path: Path) -> Rows:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        return _json_array(path, text)
    return _json_lines(path, text)


def _json_array(path: Path, text: str) -> Rows:
    items = _parse(text, str(path), 1)
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise DataError(f"{path}: item {index} is not an object but {item!r:.60}")
    return list(items)


def _json_lines(path: Path, text: str) -> Rows:
    rows: Rows = []
    # Not splitlines(): JSON strings may hold other characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = _parse(line, str(path), number)
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: not an object with fields but {row!r:.60}")
        rows.append(row)
    return rows


def _csv(path: Path) -> Rows:
    """Return the rows of a CSV file with a header; perturbed answers are lists, written as JSON.

    Commas, semicolons or tabs separate, whichever the header has most of.
    """
    rows: Rows = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        delimiter = max(_DELIMITERS, key=header.count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        names: list[str] = []
        start = 1  # of the row that is read: a quoted cell may hold line ends
        try:
            for cells in reader:
                if not names:
                    names = _header(path, cells)
                elif cells and len(cells) != len(names):
                    raise DataError(
                        f"{path}:{start}: has {len(cells)} cells, but the header names "
                        f"{len(names)}: {', '.join(names)}; a cell that holds {delimiter!r} is "
                        f"written in quotes"
                    )
                elif cells:
                    rows.append(dict(zip(names, map(_cell, cells), strict=True)))
                start = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}:{start}: not CSV: {error}; a quote inside a cell is written twice, and "
                f"the cell in quotes"
            ) from None
    return rows


def _header(path: Path, cells: list[str]) -> list[str]:
    for name in cells:
        if cells.count(name) > 1:
            raise DataError(f"{path}:1: two columns are called {name!r}; rename one of them")
    return cells


def _cell(text: str) -> Any:
    if not text.startswith("["):
        return text
    try:
        value = json.loads(text)
    except (RecursionError, ValueError):
        return text
    return value if isinstance(value, list) else text


def _parquet(path: Path) -> Rows:
    from pyarrow import ArrowException, parquet

    try:
        return list(parquet.read_table(path).to_pylist())
    except (OSError, ArrowException, ValueError, OverflowError) as error:  # odd dates overflow
        raise DataError(f"{path}: not a Parquet file of rows: {first_line(error)}") from None


_READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _json,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
