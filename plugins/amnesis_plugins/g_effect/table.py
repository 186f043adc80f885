"""The table of a measurement: one value per objective, set, and further split."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.errors import DataError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("objective", "set", "layer", "example", "token", "value")
# A total below this share of the sum of its parts' absolute values is float32 rounding error.
ROUNDING = 1e-6


@dataclass(frozen=True)
class EffectTable:
    """G-effects e(L, D) in the columns objective, set, layer, example, token, value.

    ``objective`` names L and ``set`` names D (``forget`` or ``retain``). Columns by which the
    measurement was not split are null. The values of one objective and set add up to its total.
    ``example`` numbers the examples of the data that L is a loss of (``rows`` has the row of each);
    ``token`` numbers the label tokens of the example, or its input positions where ``by`` holds
    ``position``, and is an index into ``texts[stream][example]``.

    Attributes:
        data: the columns, a :class:`pyarrow.Table`.
        by: what the values are split by.
        streams: the stream whose data each objective is a loss of, ``{objective: stream}``.
        risks: R(D) in nats, ``{set: value}``.
        rows: the index of the row that each example was made from, ``{stream: (row, ...)}``.
        texts: the text of each token, ``{stream: {example: [text, ...]}}``.
        notes: what a reader must know to understand the numbers.
        vanishing: the objectives whose gradient is 0 up to rounding, so that their values have no
            meaning.
    """

    data: pa.Table
    by: tuple[str, ...] = ()
    streams: Mapping[str, str] = field(default_factory=dict)
    risks: Mapping[str, float] = field(default_factory=dict)
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)
    texts: Mapping[str, Mapping[int, Sequence[str]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    vanishing: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.data.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from self.data.to_pylist()

    @property
    def objectives(self) -> list[str]:
        """The names of the objectives, in the order in which they were given."""
        return list(self.streams)

    def where(self, **criteria: str | int) -> EffectTable:
        """Return the rows that match, e.g. ``where(objective="ga", set="retain")``.

        Raises:
            DataError: there is no such column, or no such row.
        """
        import pyarrow.compute as pc

        data = self.data
        for column, value in criteria.items():
            if column not in COLUMNS:
                raise DataError(
                    f"a table of G-effects has no column {column!r}; "
                    f"{did_you_mean(column, COLUMNS)}"
                )
            data = data.filter(pc.equal(data[column], value))
        if not data.num_rows:
            raise DataError(
                f"no G-effect was measured for {criteria}; the table is split by {self.by}"
            )
        return replace(self, data=data)

    def total(self, **criteria: str | int) -> float:
        """Return the sum of the values of the rows that match, as in :meth:`where`."""
        import pyarrow.compute as pc

        return float(pc.sum(self.where(**criteria).data["value"]).as_py())

    def totals(self, *columns: str, **criteria: str | int) -> dict[Any, float]:
        """Return the sums of the rows that match, by the entries of one or more columns.

        The keys are the entries of a single column, or tuples of the entries of several.
        """
        data = self.where(**criteria).data
        grouped = data.group_by(list(columns), use_threads=False).aggregate([("value", "sum")])
        keys = zip(*(grouped[c].to_pylist() for c in columns), strict=True)
        sums = grouped["value_sum"].to_pylist()
        return {k if len(columns) > 1 else k[0]: s for k, s in zip(keys, sums, strict=True)}

    def ratio(self, objective: str) -> float:
        """Return the retaining over the unlearning effect: the damage per unit of forgetting.

        1 harms both sets alike, ≤ 0 does not harm the retain set. Raw effects of different
        objectives have no common scale, so this is what to compare them by. It is NaN where the
        unlearning effect is not negative, since nothing is forgotten there, or is mere rounding.
        """
        unlearn = self.total(objective=objective, set="forget")
        retain = self.total(objective=objective, set="retain")
        forgets = unlearn < 0 and not self.negligible(objective, "forget")
        return retain / unlearn if forgets else float("nan")

    def negligible(self, objective: str, set_name: str) -> bool:
        """Return whether the total is mere rounding, so that its sign and shares mean nothing."""
        import pyarrow.compute as pc

        values = self.where(objective=objective, set=set_name).data["value"]
        total, parts = pc.sum(values).as_py(), pc.sum(pc.abs(values)).as_py()
        return objective in self.vanishing or bool(abs(total) <= ROUNDING * parts)

    def to_parquet(self, path: Path | str) -> None:
        """Write the table; the attributes other than ``data`` go into the file's metadata."""
        import pyarrow.parquet as pq

        attributes = {
            "by": self.by,
            "streams": self.streams,
            "risks": self.risks,
            "rows": self.rows,
            "texts": self.texts,
            "notes": self.notes,
            "vanishing": self.vanishing,
        }
        pq.write_table(
            self.data.replace_schema_metadata({"amnesis": json.dumps(attributes)}), str(path)
        )

    @classmethod
    def read_parquet(cls, path: Path | str) -> EffectTable:
        """Return the table that :meth:`to_parquet` wrote.

        Raises:
            DataError: the file is not such a table.
        """
        import pyarrow.parquet as pq

        data = pq.read_table(str(path))
        metadata = data.schema.metadata or {}
        if tuple(data.column_names) != COLUMNS or b"amnesis" not in metadata:
            raise DataError(f"{path} is not a table of G-effects")
        attributes = json.loads(metadata[b"amnesis"])
        texts = {
            stream: {int(example): tokens for example, tokens in examples.items()}
            for stream, examples in attributes["texts"].items()
        }
        return cls(
            data.replace_schema_metadata(None),
            tuple(attributes["by"]),
            attributes["streams"],
            attributes["risks"],
            {stream: tuple(rows) for stream, rows in attributes["rows"].items()},
            texts,
            tuple(attributes["notes"]),
            tuple(attributes.get("vanishing", ())),
        )


class Rows:
    """The rows of an :class:`EffectTable` under construction."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {column: [] for column in COLUMNS}

    def add(
        self,
        objective: str,
        set_name: str,
        values: Sequence[float],
        *,
        layer: str | None = None,
        examples: Sequence[int] | None = None,
        tokens: Sequence[int] | None = None,
    ) -> None:
        """Add one row per value; ``examples`` and ``tokens`` are as many as ``values``."""
        nulls = [None] * len(values)
        block = (
            [objective] * len(values),
            [set_name] * len(values),
            [layer] * len(values),
            nulls if examples is None else examples,
            nulls if tokens is None else tokens,
            values,
        )
        for column, part in zip(COLUMNS, block, strict=True):
            self._columns[column].extend(part)

    def finished(self) -> pa.Table:
        """Return the rows added so far as a :class:`pyarrow.Table` of the columns ``COLUMNS``."""
        import pyarrow as pa

        types = (pa.string(), pa.string(), pa.string(), pa.int32(), pa.int32(), pa.float64())
        return pa.table(self._columns, schema=pa.schema(list(zip(COLUMNS, types, strict=True))))
