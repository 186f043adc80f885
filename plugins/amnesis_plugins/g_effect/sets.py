"""The data that a G-effect is measured on: encoded, batched, and numbered by token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from amnesis.contracts.stream import StreamLoss, further_texts
from amnesis.data.batches import Batch, collate, pad_token_id
from amnesis.data.examples import Example, encode_rows
from amnesis.data.spans import text_and_ends
from amnesis.data.templates import Template
from amnesis.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.contracts import StepContext
    from amnesis.data.templates import AnyTemplate, Row

Cell = Literal["token", "position"]


@dataclass(frozen=True)
class MeasuredSet:
    """A measured set: examples in batches of similar length.

    ``rows[k]`` holds, for each row of batch k, the index of its example in ``examples``.
    """

    name: str
    examples: tuple[Example, ...]
    batches: tuple[Batch, ...]
    rows: tuple[tuple[int, ...], ...]


def build_measured_set(
    name: str,
    examples: Sequence[Example],
    pad: int,
    device: object = "cpu",
    batch_size: int = 8,
) -> MeasuredSet:
    """Return the examples batched by length on ``device``; ``pad`` is the id to pad with.

    Measurements are sums over the whole set, so they do not depend on the batches.
    """
    ordered = sorted(enumerate(examples), key=lambda item: (item[1].length, item[0]))
    groups = [ordered[k : k + batch_size] for k in range(0, len(ordered), batch_size)]
    return MeasuredSet(
        name,
        tuple(examples),
        tuple(collate([e for _, e in group], pad).to(str(device)) for group in groups),
        tuple(tuple(place for place, _ in group) for group in groups),
    )


def encode_set(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    rows: Iterable[Row],
    losses: Sequence[StreamLoss],
    template: AnyTemplate | None,
    batch_size: int,
) -> MeasuredSet:
    """Return rows as a measured set on the model's device, with every text that the losses read.

    Raises:
        DataError: a row lacks a field, or the set is empty.
        RecipeError: two terms ask for different texts under one name.
    """
    template, rows = (template or Template()).within(model.config), list(rows)
    texts = further_texts(losses, rows)
    encoded = encode_rows(rows, tokenizer, template, name=name, answers=texts)
    device = next(model.parameters()).device
    return build_measured_set(name, encoded.examples, pad_token_id(tokenizer), device, batch_size)


def first_examples(context: StepContext, count: int) -> dict[str, MeasuredSet]:
    """Return the first ``count`` examples of each of the run's sets, leaving out an empty one.

    Raises:
        ContractError: ``context.run`` is None.
    """
    run = context.run
    if run is None:
        raise ContractError("the step's context says nothing of the run: its data are not there")
    return {
        name: build_measured_set(name, examples[:count], run.pad_token_id, run.device)
        for name, examples in (("forget", run.forget), ("retain", run.retain))
        if examples
    }


def measured_batches(context: StepContext, count: int | None) -> dict[str, Sequence[Batch]]:
    """Return the batches to measure on by set, leaving out a set without examples.

    They hold the first ``count`` examples of each set; if it is None, they are the next step's.

    Raises:
        ContractError: ``context.run`` is None.
    """
    if count is not None:
        return {name: first.batches for name, first in first_examples(context, count).items()}
    run = context.run
    if run is None:
        raise ContractError("the step's context says nothing of the run: its data are not there")
    return {
        name: [batch.to(run.device) for batch in batches]
        for name, batches in run.batches(context.step + 1).items()
        if batches
    }


def cells(batch: Batch, sequence: str, kind: Cell) -> tuple[Tensor, Tensor]:
    """Return the mask of a text's label tokens or input positions, and their numbers.

    Both are ``(batch, width - 1)`` for tokens and ``(batch, width)`` for positions. Cells are
    numbered from 0 within an example: those of the answer first, then those of its other texts by
    name. A number has no meaning where the mask is False.
    """
    names = ["answer", *sorted(batch.sequences)]
    masks = {n: _mask(batch.of(n), kind) for n in names}
    start = masks["answer"].long().sum(-1) * 0
    for name in names[: names.index(sequence)]:
        start = start + masks[name].sum(-1)
    mask = masks[sequence]
    return mask, mask.long().cumsum(-1) - 1 + start[:, None]


def token_texts(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, kind: Cell
) -> Mapping[int, list[str]]:
    """Return the texts of every example's cells, in the order in which :func:`cells` numbers them.

    Joined, the cells of a text are what decoding it as a whole gives, for label tokens without the
    prompt.
    """
    texts: dict[int, list[str]] = {}
    for place, example in enumerate(examples):
        pieces: list[str] = []
        for name in ["answer", *sorted(set(example.sequences) - {"answer"})]:
            encoded = example.sequences[name]
            start = encoded.prompt_length if kind == "token" else 0
            pieces += _pieces(encoded.input_ids, tokenizer)[start:]
        texts[place] = pieces
    return texts


def _pieces(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return what each token adds to the text of the tokens before it.

    Tokens are not decoded one by one, because a decoder drops the space before a lone token, but
    each behind a few of those before it. A character of several tokens belongs to the last of them,
    and the others add nothing.
    """
    if not ids:
        return []
    text, ends = text_and_ends(ids, tokenizer)
    whole = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
    rises = all(a <= b for a, b in pairwise(ends))
    if not (rises and text == whole and ends[-1] == len(text)):
        return _pieces_of_beginnings(ids, tokenizer)
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _pieces_of_beginnings(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return what :func:`_pieces` does, from every beginning: where few tokens do not tell."""
    decode = partial(tokenizer.decode, clean_up_tokenization_spaces=False)
    text, pieces, start = decode(list(ids)), list[str](), 0
    for k in range(1, len(ids)):
        end = max(start, _common_length(text, decode(list(ids[:k]))))
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def _common_length(text: str, beginning: str) -> int:
    """Return the length of the prefix that ``text`` shares with the decoded ``beginning`` of it."""
    if text.startswith(beginning):
        return len(beginning)
    return next((k for k, (a, b) in enumerate(zip(text, beginning, strict=False)) if a != b), 0)


def _mask(batch: Batch, kind: Cell) -> Tensor:
    return batch.mask if kind == "token" else batch.attention_mask.bool()
