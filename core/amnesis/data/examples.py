"""Examples: rows encoded by a template into tokens and labels, set by set."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

from amnesis.data.encoding import Pair, encode_pairs, encodes_pairs
from amnesis.data.packed import PackedTexts
from amnesis.data.spans import only_spans, spans_of
from amnesis.data.templates import AnyTemplate, Encoded, Row, TextTemplate
from amnesis.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Texts = Mapping[str, Callable[[Row], str]]
ROWS_AT_ONCE = 512  # more are no faster


@dataclass(frozen=True)
class Example:
    """A row and its encoded texts.

    Attributes:
        index: the row's number in its source.
        row: the row.
        sequences: the encoded texts by name: ``answer``, and others (``refusal``) that terms read.
    """

    index: int
    row: Row
    sequences: Mapping[str, Encoded]

    @property
    def length(self) -> int:
        """The number of tokens of the longest text."""
        return max(len(encoded.input_ids) for encoded in self.sequences.values())


class PackedExamples(Sequence[Example]):
    """Examples of rows, each made when it is asked for: its tokens are packed."""

    def __init__(self) -> None:
        """Begin without examples."""
        self._rows: list[Row] = []
        self._indices = array("q")
        self._texts: dict[str, PackedTexts] = {}

    def append(self, index: int, row: Row, sequences: Mapping[str, Encoded]) -> None:
        """Add an example; all have texts of the same names."""
        self._rows.append(row)
        self._indices.append(index)
        for name, encoded in sequences.items():
            self._texts.setdefault(name, PackedTexts()).append(encoded)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, index: int | slice) -> Example | tuple[Example, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]
        sequences = {name: texts[place] for name, texts in self._texts.items()}
        return Example(self._indices[place], self._rows[place], sequences)

    def answer_keys(self) -> Iterator[bytes]:
        """Yield a digest of each example's answer."""
        return self._texts["answer"].keys() if self._texts else iter(())

    def digests(self) -> Iterator[str]:
        """Yield the key of each example's texts, the texts in the order of their names."""
        by_name = [texts.keys() for _, texts in sorted(self._texts.items())]
        return (key.hex() for keys in zip(*by_name, strict=True) for key in keys)


@dataclass(frozen=True)
class ExampleSet:
    """The examples of one stream, and what encoding them cut or dropped.

    Attributes:
        name: the set's name, for messages.
        examples: the examples, source after source; made of packed tokens when they are asked for.
        truncated: how many examples were cut at their end.
        cut_tokens: how many tokens that cut off.
        dropped: how many examples were left out since no label token was left.
        duplicates: how many examples repeat an earlier one's answer, token for token.
        parts: weight and number of examples of each source, in the order of ``examples``; empty
            where the rows were not a mixture.
    """

    name: str
    examples: Sequence[Example]
    truncated: int = 0
    cut_tokens: int = 0
    dropped: int = 0
    duplicates: int = 0
    parts: tuple[tuple[float, int], ...] = ()

    def __len__(self) -> int:
        return len(self.examples)

    def answer_keys(self) -> Iterator[bytes]:
        """Yield a digest of each example's answer: the bytes of its key."""
        if isinstance(self.examples, PackedExamples):
            return self.examples.answer_keys()
        return (bytes.fromhex(e.sequences["answer"].key) for e in self.examples)

    def digests(self) -> Iterator[str]:
        """Yield the key of each example's texts, the texts in the order of their names."""
        if isinstance(self.examples, PackedExamples):
            return self.examples.digests()
        return (text.key for e in self.examples for _, text in sorted(e.sequences.items()))

    def summary(self) -> dict[str, int]:
        """Return the counts by name, as results and reports show them."""
        return {
            "examples": len(self),
            "truncated": self.truncated,
            "cut_tokens": self.cut_tokens,
            "dropped": self.dropped,
            "duplicates": self.duplicates,
        }


@dataclass(frozen=True)
class Mixture:
    """Rows of several sources, each with its share of a stream's draws: ``(weight, rows)``.

    Of a part of weight 0 nothing is drawn.

    Raises:
        DataError: a weight is negative or not finite, or all of them are 0.
    """

    parts: tuple[tuple[float, Sequence[Row]], ...]

    def __post_init__(self) -> None:
        weights = [weight for weight, _ in self.parts]
        if weights and not (all(0 <= weight < math.inf for weight in weights) and any(weights)):
            raise DataError(
                f"weights of a mixture must be finite and not negative, at least one of them above "
                f"0, but are {weights}"
            )

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.parts)

    def digest(self) -> str:
        """Return a digest of the rows and their weights, to tell whether they are the same."""
        digest = hashlib.blake2b(digest_size=16)
        for weight, rows in self.parts:
            digest.update(f"{weight}:{len(rows)}".encode())
            for row in rows:
                digest.update(json.dumps(dict(row), sort_keys=True, default=str).encode())
        return digest.hexdigest()


def encode_mixture(
    mixture: Mixture,
    tokenizer: PreTrainedTokenizerBase,
    template: AnyTemplate,
    *,
    name: str = "rows",
    answers: Texts | None = None,
    spans: str | None = None,
) -> ExampleSet:
    """Return the examples of all parts of a mixture, as :func:`encode_rows` encodes each.

    Parts of weight 0 are left out.

    Raises:
        DataError: a row lacks a field, or a part has no usable example.
    """
    encoder = _Encoder(tokenizer, template, name, answers or {}, spans)
    parts = [(weight, encoder.add(rows)) for weight, rows in mixture.parts if weight]
    return encoder.examples_set(tuple(parts))


def encode_rows(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    template: AnyTemplate,
    *,
    name: str = "rows",
    answers: Texts | None = None,
    spans: str | None = None,
) -> ExampleSet:
    """Return the rows as examples.

    ``answers`` maps the name of each further text to a function that returns, for a row, the text
    in the answer's place. An example that truncation leaves without a label token is dropped.
    ``name`` is the set's name in messages. ``spans`` names the rows' field that lists the parts of
    the answer whose tokens alone are labels.

    Raises:
        DataError: a row is no mapping or lacks a field, or no example is left.
    """
    encoder = _Encoder(tokenizer, template, name, answers or {}, spans)
    encoder.add(rows)
    return encoder.examples_set(())


@dataclass
class _Encoder:
    """Encodes rows, many at once, and counts what that cuts off or drops."""

    tokenizer: PreTrainedTokenizerBase
    template: AnyTemplate
    name: str
    answers: Texts
    spans: str | None
    examples: PackedExamples = field(default_factory=PackedExamples)
    truncated: int = 0
    cut_tokens: int = 0
    dropped: int = 0

    def add(self, rows: Iterable[Row]) -> int:
        """Encode a source's rows; return how many examples they became.

        Raises:
            DataError: a row is no mapping or lacks a field, or no example is left.
        """
        before, dropped = len(self.examples), self.dropped
        numbered = enumerate(rows)
        while chunk := list(itertools.islice(numbered, ROWS_AT_ONCE)):
            for (index, row), encodings in zip(chunk, self._encoded(chunk), strict=True):
                for sequences in encodings:
                    self._append(index, row, sequences)
        added = len(self.examples) - before
        if not added:
            raise DataError(
                f"set {self.name!r} has no usable example ({self.dropped - dropped} dropped "
                f"because nothing of their answers fits into {self.template.max_length} tokens); "
                f"give rows, or raise max_length"
            )
        return added

    def _append(self, index: int, row: Row, sequences: Mapping[str, Encoded]) -> None:
        excess = sum(encoded.cut for encoded in sequences.values())
        self.truncated += excess > 0
        self.cut_tokens += excess
        if min(encoded.label_count for encoded in sequences.values()) < 1:
            self.dropped += 1
        else:
            self.examples.append(index, row, sequences)

    def _encoded(self, chunk: Sequence[tuple[int, Row]]) -> Iterator[list[dict[str, Encoded]]]:
        """Yield for each row the encoded texts, by name, of each example that it becomes.

        Each chunk of a plain text is an example, and has all further texts of the row.
        """
        texts = self._texts(chunk)
        for index, row in chunk:
            own = next(texts)
            with self._naming(index):
                if self.spans is not None and (parts := spans_of(row, self.spans)) is not None:
                    own = only_spans(own, parts, self.tokenizer)
            further = {name: next(texts) for name in self.answers}
            plain = self.template if isinstance(self.template, TextTemplate) else None
            chunks = plain.chunks(own) if plain else [own]
            yield [{"answer": one, **further} for one in chunks]

    def _texts(self, chunk: Sequence[tuple[int, Row]]) -> Iterator[Encoded]:
        """Yield each row's own text and its further ones, encoded."""
        alone = not encodes_pairs(self.template)
        pairs: list[Pair] = []
        for index, row in chunk:
            if not isinstance(row, Mapping):
                raise DataError(
                    f"set {self.name!r}, row {index}: a row is a mapping of fields, not {row!r:.60}"
                )
            with self._naming(index):
                answers = [None, *(text_of(row) for text_of in self.answers.values())]
                if alone:
                    for answer in answers:
                        yield self.template.encode(row, self.tokenizer, answer)
                else:
                    pairs += [self._pair(row, answer) for answer in answers]
        yield from encode_pairs(pairs, self.tokenizer, eos=self.template.eos)

    def _pair(self, row: Row, answer: str | None) -> Pair:
        """Return what the template's ``encode`` tokenizes; a plain text of a row whole."""
        template = self.template
        prompt = "" if isinstance(template, TextTemplate) else template.prompt_of(row)
        whole = isinstance(template, TextTemplate) and answer is None
        text = template.answer_of(row) if answer is None else answer
        return Pair(prompt, text, None if whole else template.max_length)

    @contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        """Name the set and the row in an error of the row."""
        try:
            yield
        except DataError as error:
            raise DataError(f"set {self.name!r}, row {index}: {error}") from None

    def examples_set(self, parts: tuple[tuple[float, int], ...]) -> ExampleSet:
        """Return all examples so far; ``parts`` are weights and numbers of those of a mixture."""
        return ExampleSet(
            self.name,
            self.examples,
            truncated=self.truncated,
            cut_tokens=self.cut_tokens,
            dropped=self.dropped,
            duplicates=len(self.examples) - len(set(self.examples.answer_keys())),
            parts=parts,
        )


def shared_examples(one: ExampleSet, other: ExampleSet) -> int:
    """Return how many examples of ``one`` are also in ``other``, token for token."""
    keys = set(other.answer_keys())
    return sum(map(keys.__contains__, one.answer_keys()))
