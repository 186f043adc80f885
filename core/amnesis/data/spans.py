"""Spans: which parts of an answer are to be forgotten, where not all of it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amnesis.data.templates import Encoded, Row
from amnesis.errors import DataError

_CONTEXT = 12  # tokens before one that decide how it is written


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def spans_of(row: Row, column: str) -> list[str] | None:
    """Return the parts of the answer that a row's column lists; None where the row names none.

    Raises:
        DataError: the column holds something else than a text or a list of texts.
    """
    value = row.get(column)
    if value is None:
        return None
    listed: Any = [value] if isinstance(value, str) else value
    if not (
        isinstance(listed, Sequence)
        and listed
        and all(isinstance(span, str) and span.strip() for span in listed)
    ):
        raise DataError(
            f"field {column!r} must list the parts of the answer to forget, as ['Porto', '1987'], "
            f"but is {value!r:.80}"
        )
    return list(listed)


def only_spans(
    encoded: Encoded, spans: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> Encoded:
    """Return an answer's encoding with the tokens of these spans as the only labels.

    Every occurrence counts, and every token that holds a character of it.

    Raises:
        DataError: a span does not occur in the answer.
    """
    text, ends = text_and_ends(encoded.input_ids[encoded.prompt_length :], tokenizer)
    counted: set[int] = set()
    for span in spans:
        start = text.find(span)
        if start < 0:
            raise DataError(
                f"the answer does not hold {span!r:.60}, which is to be forgotten (or it was cut "
                f"off: raise template.max_length)"
            )
        while start >= 0:
            counted |= _tokens_within(ends, start, start + len(span))
            start = text.find(span, start + 1)
    return replace(encoded, counted=tuple(sorted(encoded.prompt_length + i for i in counted)))


def text_and_ends(
    labels: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> tuple[str, list[int]]:
    """Return the text of the label tokens, and where each of them ends in it.

    A token adds to the text what decoding it adds behind those before it, which is so for every
    tokenizer; a character of several tokens ends with the last of them.
    """

    def decoded(ids: Sequence[int]) -> str:
        text: str = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return text.rstrip("\ufffd")

    ends: list[int] = []
    for place in range(len(labels)):
        before = labels[max(0, place - _CONTEXT) : place]
        added = len(decoded([*before, labels[place]])) - len(decoded(before) if before else "")
        ends.append((ends[-1] if ends else 0) + added)
    return decoded(labels), ends


def _tokens_within(ends: Sequence[int], start: int, end: int) -> set[int]:
    """Return the tokens that hold any character of ``[start, end)``."""
    begins = [0, *ends[:-1]]
    return {
        index
        for index, (a, b) in enumerate(zip(begins, ends, strict=True))
        if (a < end and b > start) or (a == b and start < a < end)
    }
