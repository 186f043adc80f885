"""Scores of the frozen reference model, each by the cheapest means that provides it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from amnesis.data.batches import Batch, collate
from amnesis.data.examples import Example, ExampleSet
from amnesis.distributed.copies import frozen_copy, shard_as
from amnesis.distributed.shards import has_shards
from amnesis.models.fingerprint import fingerprint
from amnesis.models.quantization import quantized_copy
from amnesis.models.trainable import adds_nothing
from amnesis.progress import ProgressCallback
from amnesis.scoring.forward import as_own, evaluating, score_frozen
from amnesis.scoring.head import ChunkedHead
from amnesis.scoring.logits import FrozenHead, FrozenLogits
from amnesis.scoring.scores import Needs, Scores, unpack
from amnesis.scoring.stored import read_scores, write_scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

# What makes the reference's logits is cached in main memory up to this many bytes; beyond that a
# model is run.
ROWS_IN_MEMORY = 1 << 30


class Reference(Protocol):
    """Provides the scores of the frozen reference: of the model as it was before unlearning."""

    def scores(self, batch: Batch, needs: Needs) -> Scores:
        """Return the reference's scores of a batch, without gradient.

        They hold what ``needs`` declares of the reference, under the names of a model's own scores:
        ``ref_logps`` is their ``logps``, ``ref_top`` k is ``top(k)``.
        """


class FrozenCopy:
    """A reference that is a copy of the model as it is now: the last resort, at a model's cost."""

    def __init__(self, model: PreTrainedModel, in_8_bits: bool = False) -> None:
        """Copy ``model``.

        A copy in 8 bits takes about a quarter of the memory of float32, and differs slightly from
        the model: divergences from it start near 0 rather than at 0.
        """
        self._in_8_bits = in_8_bits
        if in_8_bits:
            self._model = quantized_copy(model).eval().requires_grad_(False)
        else:
            self._model = frozen_copy(model)
        self._head = ChunkedHead(self._model)

    def scores(self, batch: Batch, needs: Needs) -> Scores:
        """Return the scores of a forward pass of the copy."""
        own = as_own(needs)
        kept = self._head.frozen() if own.logits else None
        return score_frozen(self._model, batch, own, self._head, kept)

    def shard_as(self, model: PreTrainedModel) -> None:
        """Shard the copy as the model is, unless it is in 8 bits."""
        if not (self._in_8_bits or has_shards(self._model)):
            shard_as(self._model, model)


class AdapterOff:
    """A reference that is the peft model itself with its adapter off: no second set of weights."""

    def __init__(self, model: Any) -> None:
        """Create the reference of a peft model whose adapter is untrained."""
        self._model, self._head = model, ChunkedHead(model)

    def scores(self, batch: Batch, needs: Needs) -> Scores:
        """Return the scores of a forward pass of the model without its adapter."""
        own = as_own(needs)
        with self._model.disable_adapter(), evaluating(self._model):
            kept = self._head.frozen() if own.logits else None
            return score_frozen(self._model, batch, own, self._head, kept)


class Cached:
    """A reference that looks up scores of a run's examples, computed once before the run."""

    def __init__(
        self,
        logps: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
        top: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] = ({}, {}),
        head: FrozenHead | None = None,
    ) -> None:
        """Create it from scores by example key; scores that no component reads are empty.

        ``logps`` are ``(labels,)`` per example. ``rows`` are what ``head`` makes logits of,
        ``(rows, width)``, or without it the logits themselves, with a row for each of the example's
        label places, or for all of its places if those are needed. ``top`` are log-probabilities
        and token ids of those rows' likeliest entries, ``(rows, k)``.
        """
        self._logps, self._rows, self._top, self._head = logps, rows, top, head

    def scores(self, batch: Batch, needs: Needs) -> Scores:
        """Return the scores of a batch of examples that were scored before the run."""
        sequences = {
            name: self._look_up(batch.of(name), needs)
            for name in needs.sequences
            if name != "answer"
        }
        if "answer" not in needs.sequences:
            return Scores(batch.mask, batch.positions, sequences=sequences)
        return self._look_up(batch, needs, sequences)

    def shard_as(self, model: PreTrainedModel) -> None:
        """Shard a copy of the head as the model's head is."""
        if self._head is not None:
            self._head = self._head.sharded_as(model.get_output_embeddings())

    def _look_up(
        self, batch: Batch, needs: Needs, sequences: Mapping[str, Scores] | None = None
    ) -> Scores:
        mask = batch.mask
        rows = batch.positions if needs.all_positions else mask
        values: dict[str, Any] = {}
        if needs.ref_logps:
            values["logps"] = unpack(mask, _concatenate(self._logps, batch))
        if needs.ref_logits:
            found = _concatenate(self._rows, batch)
            head = self._head
            values["logits"] = found if head is None else FrozenLogits(found, head)
        if needs.ref_top:
            values["top"] = tuple(_concatenate(by_key, batch) for by_key in self._top)
        return Scores(mask, batch.positions, rows=rows, sequences=sequences, **values)


def cached(
    model: PreTrainedModel,
    examples: Sequence[Example],
    needs: Needs,
    *,
    pad_token_id: int,
    cache: Path | None = None,
    precision: str = "float32",
    batch_size: int = 16,
    progress: ProgressCallback | None = None,
    note: Callable[[str], None] | None = None,
) -> Cached:
    """Return a reference over these examples, scored now or read from the folder ``cache``.

    Only log-probabilities are stored there, by example key. Logits stay in memory: as what the
    output head reads, with a copy of the head where it trains, unless all of them are no more than
    one chunk.
    The model as it is now, by its fingerprint, and ``precision``, in which the caller's autocast
    computes, have a folder of their own: a model that has changed reads no stale scores. New ones
    become a new file, which is renamed into place, so that runs side by side do no harm; a file
    that was damaged since is known by its digest, and told to ``note``.
    """
    import torch

    model_needs = replace(as_own(needs), sequences=frozenset({"answer"}))
    device = next(model.parameters()).device
    folder = _folder_of(model, precision, cache) if cache and model_needs.logps else None
    texts = _texts_of(examples, needs)
    logps = {} if folder is None else read_scores(folder, {key for _, key in texts}, note)
    todo = [
        text
        for (_, key), text in texts.items()
        if model_needs.logits or (model_needs.logps and key not in logps)
    ]
    todo.sort(key=lambda text: text[:2])
    new_logps: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    top: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    head, count = ChunkedHead(model), 0
    in_chunks = model_needs.logits and head.serves(row_count(examples, needs))
    kept = head.frozen() if in_chunks else None
    with torch.no_grad(), evaluating(model):
        for name, places in _groups(todo, batch_size):
            group = [examples[place] for place in places]
            # Each text is scored in a batch of its own, whose answer it is.
            batch = collate(group, pad_token_id).of(name).to(device)
            scores = score_frozen(model, batch, model_needs, head, kept)
            if model_needs.logps:
                new_logps |= _by_key(batch.keys, scores.logps[batch.mask], batch.mask)
            if needs.ref_top:
                for by_key, entries in zip(top, scores.top(needs.ref_top), strict=True):
                    by_key |= _by_key(batch.keys, entries, scores.rows)
            if needs.ref_logits:
                rows |= _by_key(batch.keys, scores.head_rows, scores.rows)
            count += len(group)
            if progress is not None:
                progress("reference scores", count, len(todo))
    if folder is not None and new_logps:
        write_scores(folder, new_logps)
    return Cached(logps | new_logps, rows, top, kept)


def _texts_of(
    examples: Sequence[Example], needs: Needs
) -> dict[tuple[str, str], tuple[str, int, int]]:
    """Return each text's name, length and the place of an example that has it, by name and key.

    Of a text that several examples share the last is scored; all of them are too many to hold.
    """
    return {
        (name, example.sequences[name].key): (name, example.length, place)
        for place, example in enumerate(examples)
        for name in sorted(needs.sequences)
    }


def build_references(
    model: PreTrainedModel,
    streams: Mapping[str, tuple[ExampleSet, Needs]],
    *,
    pad_token_id: int,
    cache: Path | None = None,
    precision: str = "float32",
    copy_in_8_bits: bool = False,
    progress: ProgressCallback | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, Reference]:
    """Return a reference for each stream that reads one, by the stream's name.

    ``streams`` holds the examples and needs of each. Where its scores fit into memory they are
    computed now, by :func:`cached`. Otherwise a model runs at every step: the peft model with its
    adapter off while that is untrained, else a copy (in 8 bits with ``copy_in_8_bits``). Streams
    share that model.
    """
    references: dict[str, Reference] = {}
    running: Reference | None = None
    for name, (examples, needs) in streams.items():
        if not needs.reference:
            continue
        if cacheable(model, examples, needs):
            references[name] = cached(
                model,
                examples.examples,
                needs,
                pad_token_id=pad_token_id,
                cache=cache,
                precision=precision,
                progress=progress,
                note=note,
            )
            continue
        if running is None:
            switchable = hasattr(model, "disable_adapter") and adds_nothing(model)
            running = AdapterOff(model) if switchable else FrozenCopy(model, copy_in_8_bits)
        references[name] = running
    return references


def shard_references(references: Iterable[Reference], model: PreTrainedModel) -> None:
    """Shard what references hold of a model's weights as the model is, which was whole before."""
    if has_shards(model):
        for reference in {id(r): r for r in references}.values():
            if isinstance(reference, FrozenCopy | Cached):
                reference.shard_as(model)


def draws_at_random(model: PreTrainedModel) -> bool:
    """Whether the model computes anew each time while it trains: dropout, or a router's noise."""
    from torch.nn.modules.dropout import _DropoutNd

    rates = [module.p for module in model.modules() if isinstance(module, _DropoutNd)]
    words = ("dropout", "pdrop", "drop_rate", "jitter")
    settings = model.config.to_dict().items()
    rates += [value for key, value in settings if any(word in key for word in words)]
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates)


def cacheable(model: PreTrainedModel, examples: ExampleSet, needs: Needs) -> bool:
    """Whether the scores of a set that these needs name fit into main memory."""
    if needs.ref_hidden:
        return False
    if not (needs.ref_logits or needs.ref_top):
        return True
    head = model.get_output_embeddings()
    width = head.weight.shape[1] if ChunkedHead(model).decide() else head.weight.shape[0]
    entry = 4 + 8  # a float32 log-probability and an int64 token id
    row = width * model.dtype.itemsize if needs.ref_logits else needs.ref_top * entry
    return row_count(examples.examples, needs) * row <= ROWS_IN_MEMORY


def row_count(examples: Sequence[Example], needs: Needs) -> int:
    """Return how many places of these examples have logits that are needed."""
    return sum(
        len(encoded.input_ids) if needs.all_positions else encoded.label_count
        for example in examples
        for name, encoded in example.sequences.items()
        if name in needs.sequences
    )


def _folder_of(model: PreTrainedModel, precision: str, cache: Path) -> Path:
    suffix = "" if precision == "float32" else f"-{precision}"
    return cache / f"{fingerprint(model)}{suffix}"


def _groups(items: Sequence[tuple[str, int, int]], size: int) -> Iterator[tuple[str, list[int]]]:
    """Yield the places of the examples of each text's name, ``size`` at a time."""
    for name, group in itertools.groupby(items, key=lambda item: item[0]):
        places = [place for *_, place in group]
        for start in range(0, len(places), size):
            yield name, places[start : start + size]


def _concatenate(by_key: Mapping[str, Tensor], batch: Batch) -> Tensor:
    import torch

    return torch.cat([by_key[key] for key in batch.keys]).to(batch.mask.device)


def _by_key(keys: Sequence[str], rows: Tensor, places: Tensor) -> dict[str, Tensor]:
    """Return the rows of each example on the CPU, by key; its rows are its True ``places``."""
    import torch

    parts = torch.split(rows.cpu(), places.sum(-1).tolist())
    return {key: part.clone() for key, part in zip(keys, parts, strict=True)}
