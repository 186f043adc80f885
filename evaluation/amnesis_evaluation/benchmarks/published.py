"""Published data sets: from a local folder that mirrors them, or from the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amnesis.contracts import Row
from amnesis.errors import DataError
from amnesis.files import read_rows
from amnesis.sources import from_hub

_ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


def published(
    hub: str, folder: Path | None, config: str, split: str, *, hub_config: str | None = None
) -> Sequence[Row]:
    """Give the rows of one configuration and split; ``hub_config`` where the hub's name differs.

    In a folder they are ``config/split``, ``config_split`` or ``config`` with any of the endings
    that files of rows have.

    Raises:
        DataError: the folder or the file is missing, or the hub has no such rows.
    """
    if folder is None:
        return from_hub(hub, hub_config or config, split)
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give one with the files of {hub}")
    stems = (f"{config}/{split}", f"{config}_{split}", config)
    candidates = [folder / f"{stem}{ending}" for stem in stems for ending in _ENDINGS]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise DataError(
            f"{folder}: has no rows of {config!r}; put them there as {config}/{split}.jsonl or "
            f"{config}.jsonl (also .json, .csv, .parquet)"
        )
    return read_rows(found)


def with_fields(rows: Sequence[Row], where: str, *fields: str) -> Sequence[Row]:
    """Give the rows, all of which have ``fields``.

    Raises:
        DataError: one lacks a field.
    """
    for index, row in enumerate(rows):
        for name in fields:
            if not isinstance(row.get(name), str):
                raise DataError(f"{where}: row {index} has no text in the field {name!r}")
    return rows
