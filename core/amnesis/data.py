"""From rows to batches: question and answer become tokens, labels and masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from amnesis.errors import DataError
from amnesis.scores import IGNORED, MeanOver
from amnesis.templates import AnyTemplate, Encoded, Row, Template, TextTemplate, encode

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Batch",
    "Encoded",
    "Example",
    "ExampleSet",
    "Mixture",
    "Row",
    "Template",
    "collate",
    "encode",
    "encode_mixture",
    "encode_rows",
    "pad_token_id",
    "shared_examples",
]


Texts = Mapping[str, Callable[[Row], str]]


@dataclass(frozen=True)
class Example:
    """A row and the texts made of it: ``answer``, and others (``refusal``) that terms ask for."""

    index: int
    row: Row
    sequences: Mapping[str, Encoded]

    @property
    def length(self) -> int:
        """Tokens of the longest of its texts."""
        return max(len(encoded.input_ids) for encoded in self.sequences.values())


@dataclass(frozen=True)
class ExampleSet:
    """Examples of one stream, with what was cut or left out on the way.

    ``parts`` are (weight, number of examples) of the sources in the order of ``examples``; one
    part is drawn evenly.
    """

    name: str
    examples: tuple[Example, ...]
    truncated: int = 0
    cut_tokens: int = 0
    dropped: int = 0
    duplicates: int = 0
    parts: tuple[tuple[float, int], ...] = ()

    def __len__(self) -> int:
        return len(self.examples)

    def summary(self) -> dict[str, int]:
        """Give the counts that a report shows."""
        return {
            "examples": len(self),
            "truncated": self.truncated,
            "cut_tokens": self.cut_tokens,
            "dropped": self.dropped,
            "duplicates": self.duplicates,
        }


@dataclass(frozen=True)
class Mixture:
    """Rows from several sources, each with its weight in the draws."""

    parts: tuple[tuple[float, Sequence[Row]], ...]

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.parts)


def encode_mixture(
    mixture: Mixture,
    tokenizer: PreTrainedTokenizerBase,
    template: AnyTemplate,
    *,
    name: str = "rows",
    answers: Texts | None = None,
) -> ExampleSet:
    """Encode each part and lay them one after the other."""
    made = [
        (weight, encode_rows(rows, tokenizer, template, name=name, answers=answers))
        for weight, rows in mixture.parts
    ]
    examples = tuple(example for _, part in made for example in part.examples)
    keys = {example.sequences["answer"].key for example in examples}
    return ExampleSet(
        name,
        examples,
        sum(part.truncated for _, part in made),
        sum(part.cut_tokens for _, part in made),
        sum(part.dropped for _, part in made),
        len(examples) - len(keys),
        tuple((weight, len(part)) for weight, part in made),
    )


def encode_rows(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    template: AnyTemplate,
    *,
    name: str = "rows",
    answers: Texts | None = None,
) -> ExampleSet:
    """Encode rows into examples; ``answers`` gives the answer of each further text by name.

    An example of which truncation leaves no label is dropped. Truncated, dropped and repeated
    examples are counted.

    Raises:
        DataError: a row lacks a field, or no example is left.
    """
    examples: list[Example] = []
    truncated = cut = dropped = 0
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(
                f"set {name!r}, row {index}: a row is a mapping of fields, not {row!r:.60}"
            )
        try:
            made = _texts(row, tokenizer, template, answers or {})
        except DataError as error:
            raise DataError(f"set {name!r}, row {index}: {error}") from None
        for texts in made:
            lost = sum(encoded.cut for encoded in texts.values())
            truncated += lost > 0
            cut += lost
            if min(encoded.label_count for encoded in texts.values()) < 1:
                dropped += 1
            else:
                examples.append(Example(index, row, texts))
    if not examples:
        raise DataError(
            f"set {name!r} has no usable example ({dropped} dropped because nothing of their "
            f"answers fits into {template.max_length} tokens); give rows, or raise max_length"
        )
    keys = {example.sequences["answer"].key for example in examples}
    repeated = len(examples) - len(keys)
    return ExampleSet(name, tuple(examples), truncated, cut, dropped, repeated)


def _texts(
    row: Row, tokenizer: PreTrainedTokenizerBase, template: AnyTemplate, answers: Texts
) -> list[dict[str, Encoded]]:
    if isinstance(template, TextTemplate) and not answers:
        return [{"answer": chunk} for chunk in template.chunks(row, tokenizer)]
    prompt = template.prompt_of(row, tokenizer)
    wanted: Texts = {"answer": template.answer_of, **answers}
    return [
        {text: template.encode(prompt, answer(row), tokenizer) for text, answer in wanted.items()}
    ]


def shared_examples(one: ExampleSet, other: ExampleSet) -> int:
    """Count the examples of ``one`` that are in ``other`` too, token for token."""
    known = {example.sequences["answer"].key for example in other.examples}
    return sum(example.sequences["answer"].key in known for example in one.examples)


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
        """Give the batch of one of the examples' texts: ``answer`` is this one."""
        return self if sequence == "answer" else self.sequences[sequence]

    def count(self, mean_over: MeanOver) -> int:
        """Give the number of items that a mean over this batch runs over."""
        if mean_over == "examples":
            return len(self.keys)
        return int((self.mask if mean_over == "tokens" else self.positions).sum())

    def to(self, device: torch.device | str) -> Batch:
        """Give the same batch on ``device``."""
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
    """Give an id to pad with; masks never look at it, so any id will do."""
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
