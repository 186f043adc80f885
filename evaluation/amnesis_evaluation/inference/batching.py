"""Length-sorted batches over any number of processes, halved where memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from amnesis.distributed.processes import world
from amnesis.progress import ProgressCallback

T = TypeVar("T")
R = TypeVar("R")

BatchSize = int | Literal["auto"]

_FIRST_TRY = {"cpu": 32, "cuda": 256}


def in_batches(
    items: Sequence[T],
    run: Callable[[Sequence[T]], Sequence[R]],
    *,
    length: Callable[[T], int],
    batch_size: BatchSize,
    device: str,
    what: str,
    progress: ProgressCallback | None = None,
) -> list[R]:
    """Return ``run``'s result for each item, in the items' order, on every rank.

    Items are sorted by length, the longest first, so that a batch that does not fit is met at
    once; ``auto`` then halves the size. Each rank runs every ``world``-th item of the sorted list,
    and the results are gathered: every item is run exactly once.

    Raises:
        torch.OutOfMemoryError: a single item does not fit, or ``batch_size`` is a number.
    """
    rank, ranks = world()
    order = sorted(range(len(items)), key=lambda i: (-length(items[i]), i))
    mine = order[rank::ranks]
    size = _FIRST_TRY.get(device, 32) if batch_size == "auto" else batch_size
    done: dict[int, R] = {}
    while len(done) < len(mine):
        chosen = mine[len(done) : len(done) + size]
        results = _attempt(run, [items[i] for i in chosen], halve=batch_size == "auto")
        if results is None:
            size = max(1, len(chosen) // 2)
            continue
        done.update(zip(chosen, results, strict=True))
        if progress is not None:
            progress(what, len(done), len(mine))
    gathered = done if ranks == 1 else _gathered(done, ranks)
    return [gathered[i] for i in range(len(items))]


def _attempt(
    run: Callable[[Sequence[T]], Sequence[R]], chosen: Sequence[T], *, halve: bool
) -> Sequence[R] | None:
    import torch

    try:
        return run(chosen)
    except torch.OutOfMemoryError:
        if not halve or len(chosen) == 1:
            raise
    torch.cuda.empty_cache()
    return None


def _gathered(done: dict[int, R], ranks: int) -> dict[int, R]:
    import torch.distributed as dist

    parts: list[dict[int, R]] = [{} for _ in range(ranks)]
    dist.all_gather_object(parts, done)
    return {index: result for part in parts for index, result in part.items()}
