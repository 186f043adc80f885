"""What a probe found: one value per objective, set, and whatever else it was split by."""

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
ROUNDING = 1e-6  # of the parts' sizes: what float32 leaves where they cancel


@dataclass(frozen=True)
class EffectTable:
    """G-effects e(L, D) in the columns objective, set, layer, example, token, value.

    ``objective`` names L and ``set`` names D (``forget`` or ``retain``). A column that was not
    asked for is null. Values of one objective and set add up to its total. ``example`` counts the
    examples of L's own data (``rows`` tells whose row each is); ``token`` counts that example's
    label tokens, or its input positions where ``by`` holds ``position``, and indexes
    ``texts[stream][example]``.

    Attributes:
        data: the columns, a :class:`pyarrow.Table`.
        by: what the values are split by.
        streams: the data set that each objective is a loss of, ``{objective: stream}``.
        risks: R(D) in nats, ``{set: value}``.
        rows: the row that each example was made of, ``{stream: (row, ...)}``.
        texts: the tokens' own texts, ``{stream: {example: [text, ...]}}``.
        notes: what a reader must know beside the numbers.
        vanishing: the objectives whose gradient is 0 but for rounding, so whose values say nothing.
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
        """The objectives, in the order in which they were given."""
        return list(self.streams)

    def where(self, **chosen: str | int) -> EffectTable:
        """Keep the rows that match, e.g. ``where(objective="ga", set="retain")``.

        Raises:
            DataError: there is no such column, or no such row.
        """
        import pyarrow.compute as pc

        data = self.data
        for column, wanted in chosen.items():
            if column not in COLUMNS:
                raise DataError(
                    f"a table of G-effects has no column {column!r}; "
                    f"{did_you_mean(column, COLUMNS)}"
                )
            data = data.filter(pc.equal(data[column], wanted))
        if not data.num_rows:
            raise DataError(
                f"no G-effect was measured for {chosen}; the table is split by {self.by}"
            )
        return replace(self, data=data)

    def total(self, **chosen: str | int) -> float:
        """Add up the values of the rows that match."""
        import pyarrow.compute as pc

        return float(pc.sum(self.where(**chosen).data["value"]).as_py())

    def totals(self, *columns: str, **chosen: str | int) -> dict[Any, float]:
        """Add up the rows that match by one column ``{value: sum}``, or more ``{tuple: sum}``."""
        data = self.where(**chosen).data
        grouped = data.group_by(list(columns), use_threads=False).aggregate([("value", "sum")])
        keys = zip(*(grouped[c].to_pylist() for c in columns), strict=True)
        sums = grouped["value_sum"].to_pylist()
        return {k if len(columns) > 1 else k[0]: s for k, s in zip(keys, sums, strict=True)}

    def ratio(self, objective: str) -> float:
        """Retaining over unlearning effect: 1 harms both alike, ≤ 0 does no harm.

        Raw effects have no common scale; this is what objectives are compared by. It is NaN where
        the unlearning effect is not negative: what does not forget has no price of forgetting.
        So it is where that effect is nothing but rounding.
        """
        unlearn = self.total(objective=objective, set="forget")
        retain = self.total(objective=objective, set="retain")
        forgets = unlearn < 0 and not self.negligible(objective, "forget")
        return retain / unlearn if forgets else float("nan")

    def negligible(self, objective: str, set_name: str) -> bool:
        """Whether the total is no more than rounding leaves: its sign and shares mean nothing."""
        import pyarrow.compute as pc

        values = self.where(objective=objective, set=set_name).data["value"]
        total, parts = pc.sum(values).as_py(), pc.sum(pc.abs(values)).as_py()
        return objective in self.vanishing or bool(abs(total) <= ROUNDING * parts)

    def to_parquet(self, path: Path | str) -> None:
        """Write the table; what stands beside the columns goes into the file's metadata."""
        import pyarrow.parquet as pq

        beside = {
            "by": self.by,
            "streams": self.streams,
            "risks": self.risks,
            "rows": self.rows,
            "texts": self.texts,
            "notes": self.notes,
            "vanishing": self.vanishing,
        }
        pq.write_table(
            self.data.replace_schema_metadata({"amnesis": json.dumps(beside)}), str(path)
        )

    @classmethod
    def read_parquet(cls, path: Path | str) -> EffectTable:
        """Read what :meth:`to_parquet` wrote.

        Raises:
            DataError: the file is not such a table.
        """
        import pyarrow.parquet as pq

        data = pq.read_table(str(path))
        metadata = data.schema.metadata or {}
        if tuple(data.column_names) != COLUMNS or b"amnesis" not in metadata:
            raise DataError(f"{path} is not a table of G-effects")
        beside = json.loads(metadata[b"amnesis"])
        texts = {
            stream: {int(example): tokens for example, tokens in of_stream.items()}
            for stream, of_stream in beside["texts"].items()
        }
        return cls(
            data.replace_schema_metadata(None),
            tuple(beside["by"]),
            beside["streams"],
            beside["risks"],
            {stream: tuple(rows) for stream, rows in beside["rows"].items()},
            texts,
            tuple(beside["notes"]),
            tuple(beside.get("vanishing", ())),
        )


class Rows:
    """Collects blocks of rows while a measurement goes on."""

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
        """Add one row per value."""
        nothing = [None] * len(values)
        block = (
            [objective] * len(values),
            [set_name] * len(values),
            [layer] * len(values),
            nothing if examples is None else examples,
            nothing if tokens is None else tokens,
            values,
        )
        for column, part in zip(COLUMNS, block, strict=True):
            self._columns[column].extend(part)

    def finished(self) -> pa.Table:
        """Return the table."""
        import pyarrow as pa

        kinds = (pa.string(), pa.string(), pa.string(), pa.int32(), pa.int32(), pa.float64())
        return pa.table(self._columns, schema=pa.schema(list(zip(COLUMNS, kinds, strict=True))))
