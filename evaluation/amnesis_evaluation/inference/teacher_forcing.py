"""Teacher forcing: one forward pass, without gradients, for all that is read of given texts."""

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
from amnesis_evaluation.inference.batching import BatchSize, check_tokens, in_batches, padding

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# Rows of logits that are copied to float32 at a time, to bound memory for large vocabularies.
_ROWS_AT_ONCE = 4096


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
    """Return the scores of each text's label tokens, in order.

    A text that occurs twice is read once. Texts are batched by length and shared among processes;
    the output head runs at label positions only, and no logits are kept. The model runs in
    evaluation mode and is left in the mode it was in.

    Raises:
        ModelError: a text has a token that the model has no embedding for.
    """
    import torch

    unique = {text.key: text for text in texts}
    device = next(model.parameters()).device
    check_tokens(model, (text.input_ids for text in unique.values()))
    pad = padding(model, pad_token_id)

    def run(batch: Sequence[Encoded]) -> list[TokenScores]:
        examples = [Example(i, {}, {"answer": text}) for i, text in enumerate(batch)]
        padded_batch = collate(examples, pad, padding_side=padding_side).to(device)
        return _read(model, padded_batch, moments)

    with torch.no_grad(), evaluating(model):
        scores = in_batches(
            list(unique.values()),
            run,
            length=lambda text: len(text.input_ids),
            batch_size=batch_size,
            model=model,
            what=what,
            progress=progress,
        )
    by_key = dict(zip(unique, scores, strict=True))
    return [by_key[text.key] for text in texts]


def bare(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model without the adapter around it."""
    base: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base


def accepts(model: PreTrainedModel, argument: str) -> bool:
    """Return whether the model's forward pass takes ``argument``; adapters are looked through."""
    return argument in inspect.signature(bare(model).forward).parameters


def _read(model: PreTrainedModel, batch: Batch, moments: bool) -> list[TokenScores]:
    mask = batch.mask
    with head_on(model, mask) as is_applied:
        output = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            use_cache=False,
            **_positions(model, batch.attention_mask),
        )
    logits = output.logits[0] if is_applied else output.logits[:, :-1][mask]
    columns = _columns(logits, batch.labels[:, 1:][mask], moments)
    ends = np.cumsum(mask.sum(-1).tolist())[:-1]
    return [
        TokenScores(part[:, 0], part[:, 1].astype(bool), part[:, 2:] if moments else None)
        for part in np.split(columns.numpy(), ends)
    ]


def _positions(model: PreTrainedModel, attention_mask: Tensor) -> dict[str, Any]:
    """Return positions that count from each text's first token, where padding precedes it."""
    if bool(attention_mask[:, 0].all()) or not accepts(model, "position_ids"):
        return {}
    return {"position_ids": (attention_mask.cumsum(-1) - 1).clamp(min=0)}


def _columns(logits: Tensor, targets: Tensor, moments: bool) -> Tensor:
    """Return log-probability, correctness and moments as ``(rows, 2 or 4)``, on the CPU."""
    import torch
    from torch.nn.functional import cross_entropy

    parts = []
    for start in range(0, len(targets), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        rows, labels = logits[part], targets[part]
        rows = rows.float() if rows.element_size() < 4 else rows
        columns = [-cross_entropy(rows, labels, reduction="none"), _most_likely(rows) == labels]
        if moments:
            logps = rows.log_softmax(-1)
            probability = logps.exp()
            # A token of probability 0 has log-probability −inf, but no weight in the moments.
            logps = logps.masked_fill(probability == 0, 0)
            mean = (probability * logps).sum(-1)
            variance = (probability * logps.sub(mean[:, None]).square_()).sum(-1)
            columns += [mean, variance.sqrt()]
        parts.append(torch.stack([column.double() for column in columns], -1))
    return torch.cat(parts).cpu()


def _most_likely(logits: Tensor) -> Tensor:
    """Return each row's most likely token; numpy's argmax is some 15 times faster on a CPU."""
    import torch

    if logits.device.type == "cpu":
        return torch.from_numpy(logits.numpy().argmax(-1))
    return logits.argmax(-1)
