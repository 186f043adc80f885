"""Length-sorted batches, spread over processes, and halved where memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from amnesis.distributed.processes import world
from amnesis.distributed.shards import has_shards
from amnesis.errors import ModelError
from amnesis.progress import ProgressCallback

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")
R = TypeVar("R")

BatchSize = int | Literal["auto"]

# The first size that batch_size "auto" tries, by type of device.
_INITIAL_SIZES = {"cpu": 32, "cuda": 256}


def in_batches(
    items: Sequence[T],
    run: Callable[[Sequence[T]], Sequence[R]],
    *,
    length: Callable[[T], int],
    batch_size: BatchSize,
    model: PreTrainedModel,
    what: str,
    progress: ProgressCallback | None = None,
) -> list[R]:
    """Return ``run``'s result for each item, in the items' order, on every rank.

    Items are sorted by length, the longest first, so that a batch too large for memory comes
    first; ``auto`` then halves the size. Each rank runs every n-th item of the sorted list, n being
    the number of ranks, and receives the others' results: every item is run exactly once. Of a
    sharded ``model``, whose passes all ranks make together, every rank runs every item.
    ``what`` names the work in calls of ``progress``.

    Raises:
        torch.OutOfMemoryError: a single item does not fit, or ``batch_size`` is a number.
    """
    rank, ranks = (0, 1) if has_shards(model) else world()
    device = next(model.parameters()).device.type
    order = sorted(range(len(items)), key=lambda i: (-length(items[i]), i))
    portion = order[rank::ranks]
    size = _INITIAL_SIZES.get(device, 32) if batch_size == "auto" else batch_size
    results: dict[int, R] = {}
    while len(results) < len(portion):
        batch = portion[len(results) : len(results) + size]
        outputs = _attempt(run, [items[i] for i in batch], halve=batch_size == "auto")
        if outputs is None:
            size = max(1, len(batch) // 2)
            continue
        results.update(zip(batch, outputs, strict=True))
        if progress is not None:
            progress(what, len(results), len(portion))
    if ranks > 1:
        results = _gather(results, ranks)
    return [results[i] for i in range(len(items))]


def _attempt(
    run: Callable[[Sequence[T]], Sequence[R]], batch: Sequence[T], *, halve: bool
) -> Sequence[R] | None:
    import torch

    try:
        return run(batch)
    except torch.OutOfMemoryError:
        if not halve or len(batch) == 1:
            raise
    torch.cuda.empty_cache()
    return None


def _gather(results: dict[int, R], ranks: int) -> dict[int, R]:
    import torch.distributed as dist

    parts: list[dict[int, R]] = [{} for _ in range(ranks)]
    dist.all_gather_object(parts, results)
    return {index: result for part in parts for index, result in part.items()}


def padding(model: PreTrainedModel, pad_token_id: int) -> int:
    """Return the id to pad with: the tokenizer's, or 0 where the model has no embedding for it.

    Some tokenizers have a padding token that was never added to the model.
    """
    return pad_token_id if pad_token_id < _embeddings(model) else 0


def check_tokens(model: PreTrainedModel, texts: Iterable[Sequence[int]]) -> None:
    """Check that the model has an embedding for every token of the texts.

    Raises:
        ModelError: it has none for one of them.
    """
    largest, rows = max((max(ids, default=0) for ids in texts), default=0), _embeddings(model)
    if largest >= rows:
        raise ModelError(
            f"the tokenizer writes the token id {largest}, but the model has {rows} embeddings: "
            f"load the tokenizer that belongs to the model"
        )


def _embeddings(model: PreTrainedModel) -> int:
    return int(model.get_input_embeddings().weight.shape[0])
