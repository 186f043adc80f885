"""From rows to batches: question and answer become tokens, labels and masks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from amnesis.errors import DataError, did_you_mean
from amnesis.scores import IGNORED, MeanOver

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Row = Mapping[str, Any]


class Template(BaseModel):
    """How a row becomes text: the prompt around the question, then the answer, then its end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(
        "Question: {question}\nAnswer: ", description="text before the answer, with {question}"
    )
    question: str = Field("question", description="the row's field that is asked")
    answer: str = Field("answer", description="the row's field that is answered")
    eos: bool = Field(True, description="the end-of-sequence token is a label too, as in TOFU")
    max_length: int = Field(512, ge=2, description="longer examples are cut at their end (tokens)")

    @field_validator("prompt")
    @classmethod
    def _asks(cls, prompt: str) -> str:
        if "{question}" not in prompt:
            raise ValueError("must contain {question}, where the row's question goes")
        return prompt

    def prompt_of(self, row: Row, question: str | None = None) -> str:
        """Give the text before the answer. Only ``{question}`` is filled in; braces are text."""
        return self.prompt.replace("{question}", self._text(row, question or self.question))

    def answer_of(self, row: Row, answer: str | None = None) -> str:
        """Give the row's answer."""
        return self._text(row, answer or self.answer)

    @staticmethod
    def _text(row: Row, name: str) -> str:
        value = row.get(name)
        if value is None:
            raise DataError(f"a row has no field {name!r}; {did_you_mean(name, row)}")
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"field {name!r} must be text that is not empty, but is {value!r}")
        return value


@dataclass(frozen=True)
class Encoded:
    """One prompt and answer as tokens; labels start at ``prompt_length``."""

    input_ids: tuple[int, ...]
    prompt_length: int
    truncated: bool = False

    @property
    def key(self) -> str:
        """A digest of tokens and label mask: the name under which its reference is cached."""
        text = f"{self.prompt_length}:{','.join(map(str, self.input_ids))}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def label_count(self) -> int:
        """How many tokens are labels."""
        return len(self.input_ids) - self.prompt_length


def encode(
    prompt: str,
    answer: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    eos: bool = True,
    max_length: int = 512,
) -> Encoded:
    """Tokenize prompt and answer together; a token is a label if it holds any of the answer.

    Tokenizing the prompt apart would misplace the boundary wherever a tokenizer merges across it
    (the space before the answer, for most). Offsets tell which tokens reach into the answer;
    tokenizers without offsets are given prompt and answer one after the other.
    """
    if tokenizer.is_fast:
        encoding = tokenizer(prompt + answer, return_offsets_mapping=True)
        ids = list(encoding["input_ids"])
        boundary = len(prompt)
        ends = [end for _, end in encoding["offset_mapping"]]
        prompt_length = next((i for i, end in enumerate(ends) if end > boundary), len(ids))
    else:
        prompt_ids = list(tokenizer(prompt)["input_ids"])
        ids = prompt_ids + list(tokenizer(answer, add_special_tokens=False)["input_ids"])
        prompt_length = len(prompt_ids)
    if eos and tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(tokenizer.eos_token_id)
    # The first token has nothing before it that could predict it, so it is never a label.
    return Encoded(tuple(ids[:max_length]), max(prompt_length, 1), len(ids) > max_length)


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
    """Examples of one stream, with what was cut or left out on the way."""

    name: str
    examples: tuple[Example, ...]
    truncated: int = 0
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.examples)

    def summary(self) -> dict[str, int]:
        """Give the counts that a report shows."""
        return {"rows": len(self), "truncated": self.truncated, "dropped": self.dropped}


Texts = Mapping[str, Callable[[Row], str]]


def encode_rows(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    *,
    name: str = "rows",
    answers: Texts | None = None,
) -> ExampleSet:
    """Encode rows into examples; ``answers`` gives the answer of each further text by name.

    An example of which truncation leaves no label is dropped, and counted.

    Raises:
        DataError: a row lacks a field, or no example is left.
    """
    wanted: Texts = {"answer": template.answer_of, **(answers or {})}
    examples: list[Example] = []
    truncated = dropped = 0
    for index, row in enumerate(rows):
        try:
            prompt = template.prompt_of(row)
            texts = {
                text: encode(
                    prompt,
                    answer(row),
                    tokenizer,
                    eos=template.eos,
                    max_length=template.max_length,
                )
                for text, answer in wanted.items()
            }
        except DataError as error:
            raise DataError(f"set {name!r}, row {index}: {error}") from None
        truncated += any(encoded.truncated for encoded in texts.values())
        if min(encoded.label_count for encoded in texts.values()) < 1:
            dropped += 1
        else:
            examples.append(Example(index, row, texts))
    if not examples:
        raise DataError(
            f"set {name!r} has no usable example ({dropped} dropped because nothing of their "
            f"answers fits into {template.max_length} tokens); give rows, or raise max_length"
        )
    return ExampleSet(name, tuple(examples), truncated, dropped)


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
