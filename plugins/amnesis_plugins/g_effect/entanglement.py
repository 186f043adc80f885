"""Entanglement: which forget tokens cannot be forgotten without which retain examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amnesis.data.batches import collate
from amnesis.distributed.shards import inner_product
from amnesis_plugins.g_effect.by_token import measure_tokens
from amnesis_plugins.g_effect.directions import risk_gradient
from amnesis_plugins.g_effect.sets import MeasuredSet, cells, token_texts

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COLUMNS = ("forget_example", "token", "retain_example", "value")


@dataclass(frozen=True)
class Entanglement:
    """A value for each pair of a forget example's label token and a retain example.

    The value is ``⟨∇ℓ_i, ∇ℓ̄_j⟩ / ‖∇ℓ̄_j‖``, where ℓ̄_j is the mean log-probability of retain example
    j: by how much (in nats per unit of parameter space) the token's ℓ_i falls, to first order,
    along the direction in which ℓ̄_j falls fastest. If it is positive, the two are lost together.

    Attributes:
        pairs: (forget example, its label token, retain example, value).
        rows: the index of the row that each retain example was made from.
        texts: the text of each label token, ``{forget example: [text, ...]}``.
    """

    pairs: tuple[tuple[int, int, int, float], ...]
    rows: Sequence[int] = ()
    texts: Mapping[int, Sequence[str]] = field(default_factory=dict)

    def strongest(self, count: int) -> list[tuple[int, int, int, float]]:
        """Return the ``count`` pairs with the largest values, largest first."""
        return sorted(self.pairs, key=lambda pair: -pair[3])[:count]

    def by_example(self) -> dict[tuple[int, int], float]:
        """Return the sums over tokens, ``{(forget example, retain example): sum}``."""
        sums: dict[tuple[int, int], float] = {}
        for forget, _, retain, value in self.pairs:
            sums[forget, retain] = sums.get((forget, retain), 0.0) + value
        return sums

    def to_parquet(self, path: Path | str) -> None:
        """Write the pairs in the columns forget_example, token, retain_example and value."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {name: [pair[k] for pair in self.pairs] for k, name in enumerate(COLUMNS)}
        pq.write_table(pa.table(columns), str(path))


def measure_entanglement(
    model: PreTrainedModel,
    forget: MeasuredSet,
    retain: MeasuredSet,
    pad: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Entanglement:
    """Return the values of all pairs, by one pass over the forget set per retain example.

    ``pad`` is the id to pad with; ``progress`` is called with the number of retain examples done
    and their total. ``texts`` is empty without a ``tokenizer``.

    Raises:
        ModelError: an operation of the model has no forward derivative, or it is sharded.
    """
    device = next(model.parameters()).device
    pairs: list[tuple[int, int, int, float]] = []
    for place, example in enumerate(retain.examples):
        v = risk_gradient(model, [collate([example], pad).to(device)]).direction
        norm = sum(inner_product(t, t).item() for t in v.values()) ** 0.5
        for batch, rows in zip(forget.batches, forget.rows, strict=True):
            mask, numbers = cells(batch, "answer", "token")
            fall = -measure_tokens(model, batch, v).slopes["answer"][mask] / (norm or 1.0)
            for b, token, value in zip(
                mask.nonzero()[:, 0].tolist(), numbers[mask].tolist(), fall.tolist(), strict=True
            ):
                pairs.append((rows[b], token, place, value))
        progress(place + 1, len(retain.examples))
    texts = {} if tokenizer is None else token_texts(forget.examples, tokenizer, "token")
    return Entanglement(tuple(pairs), tuple(e.index for e in retain.examples), texts)
