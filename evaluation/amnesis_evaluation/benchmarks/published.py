"""Published data sets: from a local folder that mirrors them, or from the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from amnesis.contracts import Row
from amnesis.data.files import read_rows
from amnesis.data.sources import from_hub
from amnesis.errors import DataError

_ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


class ReadOnAccess(Mapping[str, Sequence[Row]]):
    """Sets of which each is read when it is asked for: who evaluates needs no training data."""

    def __init__(self, readers: Mapping[str, Callable[[], Sequence[Row]]]) -> None:
        """Take what reads each set."""
        self._readers = readers
        self._read: dict[str, Sequence[Row]] = {}

    def __getitem__(self, name: str) -> Sequence[Row]:
        """Return a set's rows.

        Raises:
            DataError: they cannot be read.
        """
        if name not in self._read:
            self._read[name] = self._readers[name]()
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a set; it is not read."""
        return name in self._readers

    def __iter__(self) -> Iterator[str]:
        """Go through the sets' names."""
        return iter(self._readers)

    def __len__(self) -> int:
        """Return the number of sets."""
        return len(self._readers)


def published(
    hub: str, folder: Path | None, config: str, split: str, *, hub_config: str | None = None
) -> Sequence[Row]:
    """Return the rows of one configuration and split; ``hub_config`` where the hub's name differs.

    In a folder they are ``config/split``, ``config_split`` or ``config`` with any of the endings
    that files of rows have.

    Raises:
        DataError: the folder or the file is missing, or the hub has no such rows.
    """
    if folder is None:
        return from_hub(hub, hub_config or config, split)
    check_folder(hub, folder)
    stems = (f"{config}/{split}", f"{config}_{split}", config)
    candidates = [folder / f"{stem}{ending}" for stem in stems for ending in _ENDINGS]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise DataError(
            f"{folder}: has no rows of {config!r}; put them there as {config}/{split}.jsonl or "
            f"{config}.jsonl (also .json, .csv, .parquet)"
        )
    return read_rows(found)


def check_folder(hub: str, folder: Path | None) -> None:
    """See that a folder, where one is given, is there.

    Raises:
        DataError: it is not.
    """
    if folder is not None and not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give one with the files of {hub}")


def with_fields(rows: Sequence[Row], where: str, *fields: str) -> Sequence[Row]:
    """Return the rows, all of which have ``fields``.

    Raises:
        DataError: one lacks a field.
    """
    for index, row in enumerate(rows):
        for name in fields:
            if not isinstance(row.get(name), str):
                raise DataError(f"{where}: row {index} has no text in the field {name!r}")
    return rows
