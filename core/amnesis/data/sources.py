"""Where rows come from: a set of a benchmark, a local file, or a data set on the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from amnesis.config.settings import Settings
from amnesis.config.validation import validated
from amnesis.data.examples import Mixture
from amnesis.data.files import read_rows
from amnesis.data.templates import Row
from amnesis.errors import DataError, did_you_mean, first_line


class Source(Settings):
    """One source of a stream's rows, and its share of the draws among several."""

    set: str | None = Field(None, description="a set of the recipe's benchmark")
    path: Path | None = Field(None, description="a .jsonl, .json, .csv or .parquet file")
    hub: str | None = Field(None, description="a data set on the hub")
    name: str | None = Field(None, description="the hub data set's configuration")
    split: str = Field("train", description="the hub data set's split")
    fields: dict[str, str] = Field(
        default_factory=dict, description="our field name → the name that the rows have for it"
    )
    weight: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="share of the stream's draws, beside the others'; 0: none",
    )

    @model_validator(mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_one_place(self) -> Self:
        places = [name for name in ("set", "path", "hub") if getattr(self, name) is not None]
        if len(places) != 1:
            raise ValueError(f"give one of set, path and hub (got {', '.join(places) or 'none'})")
        return self

    def rows(self, sets: Mapping[str, Sequence[Row]]) -> list[Row]:
        """Return the rows, with fields renamed as ``fields`` says; ``sets`` are the benchmark's.

        Raises:
            DataError: the set, file or data set cannot be read, or a field to rename is missing.
        """
        rows = self._read(sets)
        if not self.fields:
            return rows
        renamed: list[Row] = []
        for index, row in enumerate(rows):
            for theirs in self.fields.values():
                if theirs not in row:
                    raise DataError(
                        f"{self}: row {index} has no field {theirs!r}; {did_you_mean(theirs, row)}"
                    )
            renamed.append({**row, **{ours: row[theirs] for ours, theirs in self.fields.items()}})
        return renamed

    def __str__(self) -> str:
        return f"set {self.set!r}" if self.set else str(self.path or f"hub {self.hub}")

    def _read(self, sets: Mapping[str, Sequence[Row]]) -> list[Row]:
        if self.path is not None:
            return list(read_rows(self.path))
        if self.hub is not None:
            return from_hub(self.hub, self.name, self.split)
        if self.set not in sets:
            raise DataError(f"there is no set {self.set!r}; {did_you_mean(str(self.set), sets)}")
        return list(sets[str(self.set)])


def mixture_of(rows: Any) -> Mixture:
    """Return rows as a mixture: rows themselves, or where they are, as a recipe says it.

    That is a file, a :class:`Source` or a mapping of its fields, or a list of any of these.

    Raises:
        DataError: a file or data set cannot be read.
        RecipeError: a mapping has fields that a source has not.
    """
    if isinstance(rows, Mixture):
        return rows
    if isinstance(rows, _PLACES):
        rows = [rows]
    listed = list(rows)
    if not all(isinstance(one, str | Path | Source) or _is_source(one) for one in listed):
        return Mixture(((1.0, listed),))
    sources = [_source_of(one) for one in listed]
    return Mixture(tuple((source.weight, source.rows({})) for source in sources))


_PLACES = (str, Path, Mapping, Source)


def _is_source(value: Any) -> bool:
    """Whether a mapping says where rows are, rather than being one."""
    if not (isinstance(value, Mapping) and set(value) <= set(Source.model_fields)):
        return False
    return len({"set", "path", "hub"} & set(value)) == 1


def _source_of(value: Any) -> Source:
    if isinstance(value, Source):
        return value
    document = value if isinstance(value, Mapping) else {"path": str(value)}
    return validated(Source, document, "rows")


def from_hub(hub: str, name: str | None, split: str) -> list[Row]:
    """Return the rows of one split of a hub data set; ``name`` is its configuration.

    Raises:
        DataError: it cannot be downloaded or read.
    """
    from datasets import load_dataset

    try:
        return list(load_dataset(hub, name, split=split))
    except Exception as error:  # the hub's client raises many kinds
        raise DataError(
            f"{hub!r} (configuration {name}, split {split}) cannot be had from the hub: "
            f"{first_line(error)}"
        ) from error
