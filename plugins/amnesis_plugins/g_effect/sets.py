"""The data that a G-effect is measured on: encoded, batched, and told apart again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from amnesis.contracts.stream import StreamLoss, further_texts
from amnesis.data.batches import Batch, collate, pad_token_id
from amnesis.data.examples import Example, encode_rows
from amnesis.data.templates import Template
from amnesis.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.contracts import StepContext
    from amnesis.data.templates import AnyTemplate, Row

Cell = Literal["token", "position"]


@dataclass(frozen=True)
class ProbeSet:
    """Examples in batches of like length; ``rows[k]`` are batch k's places among them."""

    name: str
    examples: tuple[Example, ...]
    batches: tuple[Batch, ...]
    rows: tuple[tuple[int, ...], ...]


def probe_set(
    name: str,
    examples: Sequence[Example],
    pad: int,
    device: object = "cpu",
    batch_size: int = 8,
) -> ProbeSet:
    """Batch examples by length; all sums are over the whole set, so batching changes nothing."""
    ordered = sorted(enumerate(examples), key=lambda item: (item[1].length, item[0]))
    groups = [ordered[k : k + batch_size] for k in range(0, len(ordered), batch_size)]
    return ProbeSet(
        name,
        tuple(examples),
        tuple(collate([e for _, e in group], pad).to(str(device)) for group in groups),
        tuple(tuple(place for place, _ in group) for group in groups),
    )


def encoded_for(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    rows: Iterable[Row],
    losses: Sequence[StreamLoss],
    template: AnyTemplate | None,
    batch_size: int,
) -> ProbeSet:
    """Encode rows with every text that the losses read.

    Raises:
        DataError: a row lacks a field, or the set is empty.
        RecipeError: two terms ask for different texts of one name.
    """
    template, rows = (template or Template()).within(model.config), list(rows)
    texts = further_texts(losses, rows)
    encoded = encode_rows(rows, tokenizer, template, name=name, answers=texts)
    device = next(model.parameters()).device
    return probe_set(name, encoded.examples, pad_token_id(tokenizer), device, batch_size)


def first_examples(context: StepContext, count: int) -> dict[str, ProbeSet]:
    """Return the first examples of a run's forget set and, where it has one, of its retain set."""
    run = context.run
    if run is None:
        raise ContractError("the step's context says nothing of the run: its data are not there")
    return {
        name: probe_set(name, examples[:count], run.pad_token_id, run.device)
        for name, examples in (("forget", run.forget), ("retain", run.retain))
        if examples
    }


def probe_batches(context: StepContext, count: int | None) -> dict[str, Sequence[Batch]]:
    """Return probe batches of each set: of the next step, or of its first ``count`` examples."""
    if count is not None:
        return {name: probed.batches for name, probed in first_examples(context, count).items()}
    run = context.run
    if run is None:
        raise ContractError("the step's context says nothing of the run: its data are not there")
    coming = run.batches(context.step + 1)
    return {name: [b.to(run.device) for b in own] for name, own in coming.items() if own}


def cells(batch: Batch, sequence: str, kind: Cell) -> tuple[Tensor, Tensor]:
    """Return (mask, number) of a text's label tokens or input positions, ``(batch, …)`` each.

    Numbers count within an example: the answer's cells come first, then those of its other texts.
    """
    names = ["answer", *sorted(batch.sequences)]
    masks = {n: _mask(batch.of(n), kind) for n in names}
    before = masks["answer"].long().sum(-1) * 0
    for earlier in names[: names.index(sequence)]:
        before = before + masks[earlier].sum(-1)
    mask = masks[sequence]
    return mask, mask.long().cumsum(-1) - 1 + before[:, None]


def token_texts(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, kind: Cell
) -> Mapping[int, list[str]]:
    """Return the text of every cell of every example, in the order of :func:`cells`.

    A text's tokens joined are what decoding it at once gives, without its prompt for label tokens.
    """
    found: dict[int, list[str]] = {}
    for place, example in enumerate(examples):
        texts: list[str] = []
        for name in ["answer", *sorted(set(example.sequences) - {"answer"})]:
            encoded = example.sequences[name]
            start = encoded.prompt_length if kind == "token" else 0
            texts += _pieces(encoded.input_ids, tokenizer)[start:]
        found[place] = texts
    return found


def _pieces(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return what each token adds to the text of those before it.

    Decoders drop the space before a lone token, and a character of several tokens is whole only at
    the last of them: the others are given no text.
    """
    if not ids:
        return []
    decode = partial(tokenizer.decode, clean_up_tokenization_spaces=False)
    whole, pieces, shown = decode(list(ids)), list[str](), 0
    for k in range(1, len(ids)):
        end = max(shown, _agreeing(whole, decode(list(ids[:k]))))
        pieces.append(whole[shown:end])
        shown = end
    return [*pieces, whole[shown:]]


def _agreeing(whole: str, part: str) -> int:
    if whole.startswith(part):
        return len(part)
    return next((k for k, (a, b) in enumerate(zip(whole, part, strict=False)) if a != b), 0)


def _mask(batch: Batch, kind: Cell) -> Tensor:
    return batch.mask if kind == "token" else batch.attention_mask.bool()
