"""One forward pass without gradient for everything that is read from given answers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from amnesis.contracts import TokenScores
from amnesis.data.batches import Batch, collate
from amnesis.data.examples import Example
from amnesis.data.templates import Encoded
from amnesis.progress import ProgressCallback
from amnesis.scoring.forward import evaluating
from amnesis.scoring.head import head_on
from amnesis_evaluation.inference.batching import BatchSize, in_batches

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# Rows of logits widened at a time: bounds the float32 copy where the vocabulary is large.
_ROWS = 4096


def read_texts(
    model: PreTrainedModel,
    texts: Sequence[Encoded],
    *,
    pad_token_id: int,
    batch_size: BatchSize = 32,
    moments: bool = False,
    padding_side: Literal["left", "right"] = "right",
    progress: ProgressCallback | None = None,
    what: str = "reading answers",
) -> list[TokenScores]:
    """Return what ``model`` says of each text's label tokens, in order.

    A text that comes twice is read once. Texts are batched by length and sharded over processes;
    the output head runs on label places only and no logits are kept. The model is read in
    evaluation mode and left in the mode it was in.
    """
    import torch

    unique = {text.key: text for text in texts}
    device = next(model.parameters()).device

    def run(batch: Sequence[Encoded]) -> list[TokenScores]:
        examples = [Example(i, {}, {"answer": text}) for i, text in enumerate(batch)]
        padded = collate(examples, pad_token_id, padding_side=padding_side).to(device)
        return _read(model, padded, moments)

    with torch.no_grad(), evaluating(model):
        scores = in_batches(
            list(unique.values()),
            run,
            length=lambda text: len(text.input_ids),
            batch_size=batch_size,
            device=device.type,
            what=what,
            progress=progress,
        )
    by_key = dict(zip(unique, scores, strict=True))
    return [by_key[text.key] for text in texts]


def accepts(model: PreTrainedModel, argument: str) -> bool:
    """Say whether the model's forward pass takes ``argument`` (asking through an adapter)."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return argument in inspect.signature(base.forward).parameters


def _read(model: PreTrainedModel, batch: Batch, moments: bool) -> list[TokenScores]:
    mask = batch.mask
    with head_on(model, mask) as applied:
        output = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            use_cache=False,
            **_positions(model, batch.attention_mask),
        )
    logits = output.logits[0] if applied else output.logits[:, :-1][mask]
    columns = _columns(logits, batch.labels[:, 1:][mask], moments)
    ends = np.cumsum(mask.sum(-1).tolist())[:-1]
    return [
        TokenScores(part[:, 0], part[:, 1].astype(bool), part[:, 2:] if moments else None)
        for part in np.split(columns.numpy(), ends)
    ]


def _positions(model: PreTrainedModel, attention_mask: Tensor) -> dict[str, Any]:
    """Count positions from each text's first token where padding stands before it."""
    if bool(attention_mask[:, 0].all()) or not accepts(model, "position_ids"):
        return {}
    return {"position_ids": (attention_mask.cumsum(-1) - 1).clamp(min=0)}


def _columns(logits: Tensor, targets: Tensor, moments: bool) -> Tensor:
    """Return ``(rows, 2 or 4)`` on the CPU: log-probability, correct, and the moments."""
    import torch
    from torch.nn.functional import cross_entropy

    parts = []
    for start in range(0, len(targets), _ROWS):
        wide, wanted = logits[start : start + _ROWS], targets[start : start + _ROWS]
        wide = wide.float() if wide.element_size() < 4 else wide
        columns = [-cross_entropy(wide, wanted, reduction="none"), _most_likely(wide) == wanted]
        if moments:
            every = wide.log_softmax(-1)
            probability = every.exp()
            # A token of probability 0 has the log-probability −inf and no weight.
            every = every.masked_fill(probability == 0, 0)
            mean = (probability * every).sum(-1)
            variance = (probability * every.sub(mean[:, None]).square_()).sum(-1)
            columns += [mean, variance.sqrt()]
        parts.append(torch.stack([column.double() for column in columns], -1))
    return torch.cat(parts).cpu()


def _most_likely(logits: Tensor) -> Tensor:
    """Return each row's most likely token; numpy's argmax is some 15 times torch's on a CPU."""
    import torch

    if logits.device.type == "cpu":
        return torch.from_numpy(logits.numpy().argmax(-1))
    return logits.argmax(-1)
