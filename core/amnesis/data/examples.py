"""From rows to examples: question and answer become tokens and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amnesis.data.templates import AnyTemplate, Encoded, Row, TextTemplate
from amnesis.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
        """Return the counts that a report shows."""
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
