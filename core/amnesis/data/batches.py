"""Examples padded into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from amnesis.data.templates import Encoded

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from amnesis.data.examples import Example

IGNORED = -100  # the label of a token that is neither learned nor forgotten
MeanOver = Literal["tokens", "positions", "examples"]


@dataclass(frozen=True)
class Batch:
    """Padded examples: ``input_ids``, ``attention_mask`` and ``labels``, each ``(batch, width)``.

    ``keys`` are the examples' digests; ``sequences`` further texts of the same examples.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    keys: tuple[str, ...]
    sequences: Mapping[str, Batch] = field(default_factory=dict)

    @property
    def mask(self) -> Tensor:
        """True where a place has a label, ``(batch, width - 1)``."""
        return self.labels[:, 1:] != IGNORED

    @property
    def positions(self) -> Tensor:
        """True on prompt and answer, False on padding, ``(batch, width - 1)``."""
        return self.attention_mask[:, 1:].bool()

    def of(self, sequence: str) -> Batch:
        """Return the batch of one of the examples' texts: ``answer`` is this one."""
        return self if sequence == "answer" else self.sequences[sequence]

    def count(self, mean_over: MeanOver) -> int:
        """Return the number of items that a mean over this batch runs over."""
        if mean_over == "examples":
            return len(self.keys)
        return int((self.mask if mean_over == "tokens" else self.positions).sum())

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on ``device``."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            labels=self.labels.to(device),
            sequences={name: batch.to(device) for name, batch in self.sequences.items()},
        )


def collate(
    examples: Sequence[Example], pad_token_id: int, *, padding_side: str = "right"
) -> Batch:
    """Pad examples into a batch. The attention mask follows lengths, never the padding's id."""
    batches = {
        name: _pad([e.sequences[name] for e in examples], pad_token_id, padding_side)
        for name in examples[0].sequences
    }
    answer = batches.pop("answer")
    return replace(answer, sequences=batches)


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return an id to pad with; masks never look at it, so any id will do."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    return 0


def _pad(encoded: Sequence[Encoded], pad: int, side: str) -> Batch:
    import torch

    width = max(len(e.input_ids) for e in encoded)
    input_ids = torch.full((len(encoded), width), pad)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    for row, e in enumerate(encoded):
        start = 0 if side == "right" else width - len(e.input_ids)
        end = start + len(e.input_ids)
        ids = torch.tensor(e.input_ids)
        input_ids[row, start:end] = ids
        attention_mask[row, start:end] = 1
        labels[row, start + e.prompt_length : end] = ids[e.prompt_length :]
    return Batch(input_ids, attention_mask, labels, tuple(e.key for e in encoded))
