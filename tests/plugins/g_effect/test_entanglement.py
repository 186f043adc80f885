"""Entanglement against gradients of single tokens and examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.plugins.g_effect import naive

from amnesis_plugins.g_effect.entanglement import measure_entanglement
from amnesis_plugins.g_effect.sets import encode_set


def test_each_pair_is_the_inner_product_of_two_gradients(
    build: Any, tiny_tokenizer: Any, qa_rows: Any, exact: None, tmp_path: Path
) -> None:
    model = build("phi, biased")
    forget, retain = (
        encode_set(model, tiny_tokenizer, name, rows, [], None, 2)
        for name, rows in (("forget", qa_rows[1:3]), ("retain", qa_rows[3:6]))
    )
    found = measure_entanglement(model, forget, retain, 0)
    values = {pair[:3]: pair[3] for pair in found.pairs}
    assert len(values) == len(found.pairs) == 3 * sum(int(b.mask.sum()) for b in forget.batches)
    kept = retain.batches[0]
    for b, j in enumerate(retain.rows[0]):
        lost = naive.label_logps(model, kept)[b].sum() / kept.mask[b].sum()
        v = naive.gradient(model, lost)
        length = naive.product(v, v) ** 0.5
        for place in (0, 2):
            batch, row = forget.batches[0], forget.rows[0][0]
            column = batch.mask[0].nonzero()[place, 0]
            g = naive.gradient(model, naive.label_logps(model, batch)[0, column])
            wanted = naive.product(g, v) / length
            assert values[row, place, j] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    strongest = found.strongest(4)
    assert [p[3] for p in strongest] == sorted(values.values(), reverse=True)[:4]
    assert sum(found.by_example().values()) == pytest.approx(sum(values.values()))
    found.to_parquet(tmp_path / "pairs.parquet")
    assert pq.read_table(tmp_path / "pairs.parquet").num_rows == len(values)


def test_a_token_is_most_entangled_with_its_own_example(
    build: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    import torch

    model = build("llama, tied", torch.float32)
    both = [
        encode_set(model, tiny_tokenizer, name, qa_rows[:5], [], None, 8)
        for name in ("forget", "retain")
    ]
    sums = measure_entanglement(model, both[0], both[1], 0).by_example()
    for i in range(5):
        assert max(range(5), key=lambda j: sums[i, j]) == i
