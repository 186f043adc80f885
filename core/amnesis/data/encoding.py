"""Encoding of many texts at once: the tokens of one by one, at half the cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amnesis.data.templates import AnyTemplate, Encoded, Template, TextTemplate, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_CHARACTERS = 1 << 20  # of one call: what a tokenizer makes of them must fit into memory


@dataclass(frozen=True)
class Pair:
    """A prompt and an answer to encode; ``max_length`` is in tokens, None: never cut."""

    prompt: str
    answer: str
    max_length: int | None


def encodes_pairs(template: AnyTemplate) -> bool:
    """Return whether a template's ``encode`` is that of its prompt and its answer, and no other."""
    return type(template).encode in (Template.encode, TextTemplate.encode)


def encode_pairs(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, *, eos: bool
) -> list[Encoded]:
    """Return what :func:`amnesis.data.templates.encode` makes of each pair, token for token."""
    if not tokenizer.is_fast:
        return [_encode_alone(pair, tokenizer, eos) for pair in pairs]
    return [encoded for group in _groups(pairs) for encoded in _encode_group(group, tokenizer, eos)]


def _groups(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    group: list[Pair] = []
    characters = 0
    for pair in pairs:
        size = len(pair.prompt) + len(pair.answer)
        if group and characters + size > MAX_CHARACTERS:
            yield group
            group, characters = [], 0
        group.append(pair)
        characters += size
    if group:
        yield group


def _encode_group(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, eos: bool
) -> Iterator[Encoded]:
    try:
        batch = tokenizer(
            [pair.prompt + pair.answer for pair in pairs],
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
    except Exception:  # one text that no tokenizer takes must be named by its own row
        yield from (_encode_alone(pair, tokenizer, eos) for pair in pairs)
        return
    end = tokenizer.eos_token_id if eos else None
    for pair, ids, encoding in zip(pairs, batch["input_ids"], batch.encodings, strict=True):
        prompt_length = _prompt_length(encoding, len(pair.prompt), len(ids))
        if end is not None and ids[-1:] != [end]:
            ids.append(end)
        kept = ids if pair.max_length is None else ids[: pair.max_length]
        yield Encoded(tuple(kept), max(prompt_length, 1), len(ids) - len(kept))


def _encode_alone(pair: Pair, tokenizer: PreTrainedTokenizerBase, eos: bool) -> Encoded:
    return encode(pair.prompt, pair.answer, tokenizer, eos=eos, max_length=pair.max_length)


def _prompt_length(encoding: Any, boundary: int, size: int) -> int:
    """Return the place of the first token that ends behind the boundary, in characters.

    It is mostly the one that holds the character there, which the tokenizer finds without handing
    out the places of all tokens.
    """
    place: int | None = encoding.char_to_token(boundary)
    if place is not None:
        before = encoding.token_to_chars(place - 1) if place else None
        if before is None or before[1] <= boundary:
            return place
    return next((i for i, (_, end) in enumerate(encoding.offsets) if end > boundary), size)
