"""Rows from local files: JSON lines, JSON, CSV and Parquet; errors name file and line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amnesis.errors import DataError, did_you_mean

Rows = list[dict[str, Any]]


def read_rows(path: Path) -> Rows:
    """Return the rows of a .jsonl, .json, .csv or .parquet file.

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
    if not path.is_file():
        near = (
            [p.name for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else ()
        )
        raise DataError(f"{path}: there is no such file; {did_you_mean(path.name, near)}")
    try:
        rows = reader(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}") from None
    if not rows:
        raise DataError(f"{path}: holds no row")
    return rows


def _json(path: Path) -> Rows:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        return _json_array(path, text)
    return _json_lines(path, text)


def _json_array(path: Path, text: str) -> Rows:
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
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
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: not an object with fields but {row!r:.60}")
        rows.append(row)
    return rows


def _csv(path: Path) -> Rows:
    """Return the rows of a CSV file with a header; perturbed answers are lists, written as JSON."""
    rows: Rows = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}:{reader.line_num}: has not as many cells as the header, which "
                        f"names {', '.join(reader.fieldnames or ())}"
                    )
                rows.append({name: _cell(value) for name, value in row.items()})
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: not CSV: {error}") from None
    return rows


def _cell(text: str) -> Any:
    if not text.startswith("["):
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, list) else text


def _parquet(path: Path) -> Rows:
    from pyarrow import ArrowException, parquet

    try:
        return list(parquet.read_table(path).to_pylist())
    except (OSError, ArrowException) as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from None


_READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _json,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
