"""Batches: every item once, in order, at a size that fits."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.processes import on_two_ranks

from amnesis_evaluation.inference.batching import BatchSize, in_batches


@given(
    items=st.lists(st.integers(0, 50), max_size=40),
    size=st.integers(1, 12),
)
def test_results_come_in_the_items_order(items: list[int], size: int) -> None:
    batches: list[list[int]] = []

    def run(batch: Sequence[int]) -> list[str]:
        batches.append(list(batch))
        return [f"<{item}>" for item in batch]

    results = in_batches(
        items,
        run,
        length=lambda item: item,
        batch_size=size,
        model=torch.nn.Linear(1, 1),
        what="test",
    )
    assert results == [f"<{item}>" for item in items]
    flat = [item for batch in batches for item in batch]
    assert flat == sorted(items, reverse=True)
    assert all(len(batch) <= size for batch in batches)


def fails_above(limit: int, tried: list[int]) -> Callable[[Sequence[int]], list[int]]:
    def run(batch: Sequence[int]) -> list[int]:
        tried.append(len(batch))
        if len(batch) > limit:
            raise torch.OutOfMemoryError
        return [item * 2 for item in batch]

    return run


def test_auto_halves_until_it_fits() -> None:
    tried: list[int] = []
    results = in_batches(
        list(range(50)),
        fails_above(5, tried),
        length=lambda item: item,
        batch_size="auto",
        model=torch.nn.Linear(1, 1),
        what="test",
    )
    assert results == [item * 2 for item in range(50)]
    assert tried[:4] == [32, 16, 8, 4]
    assert max(tried[3:]) == 4


@pytest.mark.parametrize(("batch_size", "limit"), [(8, 5), ("auto", 0)])
def test_a_size_that_was_asked_for_or_a_single_item_that_does_not_fit_fails(
    batch_size: BatchSize, limit: int
) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        in_batches(
            list(range(9)),
            fails_above(limit, []),
            length=lambda item: item,
            batch_size=batch_size,
            model=torch.nn.Linear(1, 1),
            what="test",
        )


def _rank(rank: int, folder: Path) -> None:
    run_here: list[int] = []

    def run(batch: Sequence[int]) -> list[int]:
        run_here.extend(batch)
        return [item * item for item in batch]

    results = in_batches(
        [3, 1, 4, 1, 5, 9, 2],
        run,
        length=lambda i: i,
        batch_size=2,
        model=torch.nn.Linear(1, 1),
        what="test",
    )
    (folder / f"{rank}.json").write_text(json.dumps([results, run_here]))


def _rank_of_shards(rank: int, folder: Path) -> None:
    from torch.distributed.fsdp import fully_shard

    model = torch.nn.Linear(4, 4)
    fully_shard(model)
    seen: list[int] = []

    def run(batch: Sequence[int]) -> list[float]:
        seen.extend(batch)
        rows = torch.tensor([[float(item)] * 4 for item in batch])
        return [float(one) for one in model(rows).sum(-1)]  # gathers the weights of both ranks

    results = in_batches([3, 1, 4], run, length=lambda i: i, batch_size=2, model=model, what="test")
    (folder / f"{rank}.json").write_text(json.dumps([results, seen]))


def test_a_sharded_model_s_passes_are_made_by_all_processes_together(tmp_path: Path) -> None:
    on_two_ranks(_rank_of_shards, tmp_path)
    (first, seen_first), (second, seen_second) = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)
    )
    assert seen_first == seen_second == [4, 3, 1]
    assert first == second


def test_two_processes_share_the_items_and_both_have_all_results(tmp_path: Path) -> None:
    on_two_ranks(_rank, tmp_path)
    (first, ran_first), (second, ran_second) = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)
    )
    assert first == second == [9, 1, 16, 1, 25, 81, 4]
    assert sorted(ran_first + ran_second) == [1, 1, 2, 3, 4, 5, 9]
    assert ran_first == [9, 4, 2, 1]
