"""Scores of the frozen reference model, by the cheapest means that gives what is needed."""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from amnesis.data import Batch, Example, collate
from amnesis.forward import as_own, score
from amnesis.scores import Needs, Scores, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

Progress = Callable[[str, int, int], None]


class Reference(Protocol):
    """Gives what the frozen reference says of a batch."""

    def scores(self, batch: Batch, needs: Needs) -> Scores:
        """Give the reference's own scores that meet ``needs``, without gradient."""


class FrozenCopy:
    """A copy of the model as it is now: the last resort, for logits and hidden states."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Copy ``model``; the copy never trains."""
        self._model = copy.deepcopy(model).eval().requires_grad_(False)

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


class CachedLogps:
    """Log-probabilities of the label tokens of known examples, computed once before the run."""

    def __init__(self, logps: dict[str, Tensor]) -> None:
        """Take ``{example key: (labels,)}``."""
        self._logps = logps

    def scores(self, batch: Batch, needs: Needs) -> Scores:
        """Look the batch's examples up."""
        further = {
            name: self._laid_out(batch.of(name)) for name in needs.sequences if name != "answer"
        }
        own = self._laid_out(batch) if "answer" in needs.sequences else Scores(batch.mask)
        own._sequences = further
        return own

    def _laid_out(self, batch: Batch) -> Scores:
        import torch

        values = torch.cat([self._logps[key] for key in batch.keys]).to(batch.mask.device)
        return Scores(batch.mask, batch.positions, logps=unpack(batch.mask, values))


def cached_logps(
    model: PreTrainedModel,
    examples: Iterable[Example],
    sequences: Iterable[str],
    *,
    pad_token_id: int,
    cache: Path | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> CachedLogps:
    """Score every example under the model as it is now, reading what ``cache`` already holds.

    ``cache`` is a folder; its entries are named by a fingerprint of the weights, the dtype and the
    attention implementation, and hold one tensor per example key (tokens and label mask). A model
    that changed has another fingerprint, so a stale score is never used. New scores are written
    to a file of their own and renamed into place: runs side by side cannot corrupt each other.
    """
    import torch

    device = next(model.parameters()).device
    folder = cache / fingerprint(model) if cache is not None else None
    known = _read(folder) if folder is not None else {}
    logps: dict[str, Tensor] = {}
    missing: list[tuple[str, Example]] = []
    for name in sorted(sequences):
        for example in examples:
            key = example.sequences[name].key
            if key in known:
                logps[key] = known[key]
            else:
                missing.append((name, example))
    missing.sort(key=lambda item: (item[0], item[1].length))
    fresh: dict[str, Tensor] = {}
    with torch.no_grad(), evaluating(model):
        for name, group in _groups(missing, batch_size):
            batch = collate(group, pad_token_id).of(name).to(device)
            scored = score(model, batch, Needs(logps=True))
            for key, row, labelled in zip(batch.keys, scored.logps, batch.mask, strict=True):
                fresh[key] = row[labelled].cpu()
            if progress is not None:
                progress("reference scores", len(fresh), len(missing))
    if folder is not None and fresh:
        _write(folder, fresh)
    return CachedLogps(logps | fresh)


def fingerprint(model: PreTrainedModel) -> str:
    """Digest the weights' bytes and names, their dtype and the attention implementation."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    digest.update(str(getattr(model.config, "_attn_implementation", "")).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Run without dropout, and put every module's mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _groups(
    items: Sequence[tuple[str, Example]], size: int
) -> Iterator[tuple[str, list[Example]]]:
    for name in sorted({name for name, _ in items}):
        own = [example for other, example in items if other == name]
        for start in range(0, len(own), size):
            yield name, own[start : start + size]


def _read(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    known: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        known |= load_file(file)
    return known


def _write(folder: Path, logps: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b("".join(sorted(logps)).encode(), digest_size=16).hexdigest()
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
    os.close(handle)
    save_file(logps, temporary)
    Path(temporary).replace(folder / f"{digest}.safetensors")
