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
    """Sets that are read on first access, so that an evaluation reads no training data."""

    def __init__(self, readers: Mapping[str, Callable[[], Sequence[Row]]]) -> None:
        """Keep the readers; none is called yet."""
        self._readers = readers
        self._rows: dict[str, Sequence[Row]] = {}

    def __getitem__(self, name: str) -> Sequence[Row]:
        """Return a set's rows.

        Raises:
            DataError: they cannot be read.
        """
        if name not in self._rows:
            self._rows[name] = self._readers[name]()
        return self._rows[name]

    def __contains__(self, name: object) -> bool:
        """Return whether there is such a set, without reading it."""
        return name in self._readers

    def __iter__(self) -> Iterator[str]:
        """Iterate over the sets' names, without reading any."""
        return iter(self._readers)

    def __len__(self) -> int:
        """Return the number of sets."""
        return len(self._readers)


def published(
    hub: str, folder: Path | None, config: str, split: str, *, hub_config: str | None = None
) -> Sequence[Row]:
    """Return the rows of one configuration and split, from ``folder`` or, without one, the hub.

    In a folder the file is ``config/split``, ``config_split`` or ``config`` with any ending of a
    file of rows. ``hub_config`` is the configuration's name on the hub, where it differs.

    Raises:
        DataError: the folder or the file is missing, or the hub has no such rows.
    """
    if folder is None:
        return from_hub(hub, hub_config or config, split)
    check_folder(hub, folder)
    stems = (f"{config}/{split}", f"{config}_{split}", config)
    candidates = [folder / f"{stem}{ending}" for stem in stems for ending in _ENDINGS]
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        raise DataError(
            f"{folder}: has no rows of {config!r}; put them there as {config}/{split}.jsonl or "
            f"{config}.jsonl (also .json, .csv, .parquet)"
        )
    return read_rows(file)


def check_folder(hub: str, folder: Path | None) -> None:
    """Check that ``folder``, where one is given, exists.

    Raises:
        DataError: it is not a folder.
    """
    if folder is not None and not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give one with the files of {hub}")


def with_fields(rows: Sequence[Row], where: str, *fields: str) -> Sequence[Row]:
    """Return the rows unchanged if each has a text in every one of ``fields``.

    Raises:
        DataError: a row lacks a text; ``where`` names the rows in the message.
    """
    for index, row in enumerate(rows):
        for name in fields:
            if not isinstance(row.get(name), str):
                raise DataError(f"{where}: row {index} has no text in the field {name!r}")
    return rows
