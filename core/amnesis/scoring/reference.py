"""Scores of the frozen reference model, by the cheapest means that gives what is needed."""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from amnesis.data.batches import Batch, collate
from amnesis.data.examples import Example, ExampleSet
from amnesis.models.fingerprint import fingerprint
from amnesis.models.quantization import quantized_copy
from amnesis.models.trainable import adds_nothing
from amnesis.progress import ProgressCallback
from amnesis.scoring.forward import as_own, evaluating, score
from amnesis.scoring.head import ChunkedHead
from amnesis.scoring.scores import Needs, Scores, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

# Reference logits are cached up to this many bytes of main memory; beyond, a copy is run.
LOGITS_IN_MEMORY = 1 << 30


class Reference(Protocol):
    """Gives what the frozen reference says of a batch."""

    def scores(self, batch: Batch, needs: Needs) -> Scores:
        """Return the reference's own scores that meet ``needs``, without gradient."""


class FrozenCopy:
    """A copy of the model as it is now: the last resort, for logits and hidden states."""

    def __init__(self, model: PreTrainedModel, in_8_bits: bool = False) -> None:
        """Copy ``model``; the copy never trains.

        In 8 bits it takes about a quarter of float32's memory, and is only nearly the model: a
        divergence from it starts near 0, not at 0.
        """
        made = quantized_copy(model) if in_8_bits else copy.deepcopy(model)
        self._model = made.eval().requires_grad_(False)

    def scores(self, batch: Batch, needs: Needs) -> Scores:
        """Run the copy."""
        import torch

        with torch.no_grad():
            return score(self._model, batch, as_own(needs))


class AdapterOff:
    """The trained model itself with its LoRA adapter switched off: no second copy of weights."""

    def __init__(self, model: Any) -> None:
        """Take a peft model."""
        self._model = model

    def scores(self, batch: Batch, needs: Needs) -> Scores:
        """Run the model once more, without its adapter."""
        import torch

        with torch.no_grad(), self._model.disable_adapter(), evaluating(self._model):
            return score(self._model, batch, as_own(needs))


class Cached:
    """Scores of known examples, computed once before the run.

    ``logps`` holds one tensor ``(labels,)`` per example key, ``logits`` one ``(rows, vocabulary)``,
    rows being the example's label places, or all its places where that was asked for; ``top`` the
    likeliest entries of those rows and their indices, ``(rows, k)``.
    """

    def __init__(
        self,
        logps: Mapping[str, Tensor],
        logits: Mapping[str, Tensor],
        top: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] = ({}, {}),
    ) -> None:
        """Take scores by example key; each may be empty where nobody reads it."""
        self._logps, self._logits, self._top = logps, logits, top

    def scores(self, batch: Batch, needs: Needs) -> Scores:
        """Look the batch's examples up."""
        further = {
            name: self._laid_out(batch.of(name), needs)
            for name in needs.sequences
            if name != "answer"
        }
        if "answer" not in needs.sequences:
            return Scores(batch.mask, batch.positions, sequences=further)
        return self._laid_out(batch, needs, further)

    def _laid_out(
        self, batch: Batch, needs: Needs, further: Mapping[str, Scores] | None = None
    ) -> Scores:
        mask = batch.mask
        rows = batch.positions if needs.all_positions else mask
        values: dict[str, Any] = {}
        if needs.ref_logps:
            values["logps"] = unpack(mask, _joined(self._logps, batch))
        if needs.ref_logits:
            values["logits"] = _joined(self._logits, batch)
        if needs.ref_top:
            values["top"] = tuple(_joined(kept, batch) for kept in self._top)
        return Scores(mask, batch.positions, rows=rows, sequences=further, **values)


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
) -> Cached:
    """Score every example under the model as it is now, reading what ``cache`` already holds.

    ``cache`` is a folder for log-probabilities; its entries are named by a fingerprint of the
    weights, the configuration, the dtype and the attention implementation, and by the
    ``precision`` that the caller's autocast computes in; they hold one tensor per example key
    (tokens and label mask). A model that changed has another fingerprint, so a stale score is
    never used. New scores are written to a file of their own and renamed into place: runs side by
    side cannot corrupt each other. Logits are kept in memory for this run alone.
    """
    import torch

    own = as_own(needs)
    device = next(model.parameters()).device
    suffix = "" if precision == "float32" else f"-{precision}"
    keeps = cache is not None and own.logps
    folder = cache / f"{fingerprint(model)}{suffix}" if keeps and cache is not None else None
    known = _read(folder) if folder is not None else {}
    wanted = {
        (name, example.sequences[name].key): example
        for name in sorted(needs.sequences)
        for example in examples
    }
    logps = {key: known[key] for _, key in wanted if key in known}
    logits: dict[str, Tensor] = {}
    top: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    missing = [
        (name, example)
        for (name, key), example in wanted.items()
        if own.logits or (own.logps and key not in known)
    ]
    missing.sort(key=lambda item: (item[0], item[1].length))
    fresh: dict[str, Tensor] = {}
    head, done = ChunkedHead(model), 0
    with torch.no_grad(), evaluating(model):
        for name, group in _groups(missing, batch_size):
            batch = collate(group, pad_token_id).of(name).to(device)
            scored = score(model, batch, replace(own, sequences=frozenset({"answer"})), head=head)
            if own.logps:
                fresh |= _by_key(batch.keys, scored.logps[batch.mask], batch.mask)
            if needs.ref_top:
                for kept, found in zip(top, scored.top(needs.ref_top), strict=True):
                    kept |= _by_key(batch.keys, found, scored.rows)
            if needs.ref_logits:
                logits |= _by_key(batch.keys, scored.logits, scored.rows)
            done += len(group)
            if progress is not None:
                progress("reference scores", done, len(missing))
    if folder is not None and fresh:
        _write(folder, fresh)
    return Cached(logps | fresh, logits, top)


def build_references(
    model: PreTrainedModel,
    streams: Mapping[str, tuple[ExampleSet, Needs]],
    *,
    pad_token_id: int,
    cache: Path | None = None,
    precision: str = "float32",
    copy_in_8_bits: bool = False,
    progress: ProgressCallback | None = None,
) -> dict[str, Reference]:
    """Return, for each stream that reads it, the cheapest reference that gives what it needs.

    Scores are computed once and kept where they fit; otherwise the model is run beside itself
    with its adapter off, or, as the last resort, as a copy, which streams share.
    """
    references: dict[str, Reference] = {}
    whole: Reference | None = None
    for name, (examples, needs) in streams.items():
        if not needs.reference:
            continue
        if _cacheable(model, examples, needs):
            references[name] = cached(
                model,
                examples.examples,
                needs,
                pad_token_id=pad_token_id,
                cache=cache,
                precision=precision,
                progress=progress,
            )
            continue
        if whole is None:
            switchable = hasattr(model, "disable_adapter") and adds_nothing(model)
            whole = AdapterOff(model) if switchable else FrozenCopy(model, copy_in_8_bits)
        references[name] = whole
    return references


def _cacheable(model: PreTrainedModel, examples: ExampleSet, needs: Needs) -> bool:
    if needs.ref_hidden:
        return False
    if not (needs.ref_logits or needs.ref_top):
        return True
    vocabulary = model.get_output_embeddings().weight.shape[0]
    size = logit_bytes(examples.examples, needs, vocabulary, model.dtype.itemsize)
    return size <= LOGITS_IN_MEMORY


def logit_bytes(examples: Sequence[Example], needs: Needs, vocabulary: int, element: int) -> int:
    """Return the bytes that caching these examples' logits, or likeliest entries, would take."""
    rows = sum(
        len(encoded.input_ids) if needs.all_positions else encoded.label_count
        for example in examples
        for name, encoded in example.sequences.items()
        if name in needs.sequences
    )
    return rows * (vocabulary * element if needs.ref_logits else needs.ref_top * (4 + 8))


def _groups(items: Sequence[tuple[str, Example]], size: int) -> Iterator[tuple[str, list[Example]]]:
    for name in sorted({name for name, _ in items}):
        own = [example for other, example in items if other == name]
        for start in range(0, len(own), size):
            yield name, own[start : start + size]


def _joined(known: Mapping[str, Tensor], batch: Batch) -> Tensor:
    import torch

    return torch.cat([known[key] for key in batch.keys]).to(batch.mask.device)


def _by_key(keys: Sequence[str], rows: Tensor, places: Tensor) -> dict[str, Tensor]:
    import torch

    parts = torch.split(rows.cpu(), places.sum(-1).tolist())
    return {key: part.clone() for key, part in zip(keys, parts, strict=True)}


def _read(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    known: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            known |= load_file(file)
        except (SafetensorError, OSError):
            continue  # torn or just deleted: what it held is computed again
    return known


def _write(folder: Path, logps: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b("".join(sorted(logps)).encode(), digest_size=16).hexdigest()
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
    os.close(handle)
    save_file(logps, temporary)
    Path(temporary).replace(folder / f"{digest}.safetensors")
