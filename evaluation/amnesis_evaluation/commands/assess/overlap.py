"""What of the forget set is in the retain set: the same rows, and rows that are nearly the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from amnesis.data.templates import ChatTemplate, TextTemplate
from amnesis_evaluation.commands.assess.record import Overlap, Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from amnesis.contracts import ProgressCallback, Row
    from amnesis.data.templates import AnyTemplate

N = 5  # tokens of an n-gram
NEAR = 0.5  # share of the n-grams from which on rows are nearly the same
_EVERY = 256  # rows from one report of progress to the next


def overlap_of(
    sets: Mapping[str, Sequence[Row]],
    template: AnyTemplate,
    tokenizer: PreTrainedTokenizerBase,
    progress: ProgressCallback,
) -> Overlap:
    """Return the pairs of a forget and a retain row that are the same, or nearly so.

    Rows are the same if their texts are, but for case and spaces. They are nearly the same if at
    least half of the shorter one's n-grams (of five tokens) are in the other: of each forget row
    the retain row is named that has most of them. Rows of fewer tokens than an n-gram are compared
    as wholes.
    """
    texts = {name: [_plain(row, template) for row in sets[name]] for name in ("forget", "retain")}
    places: dict[str, int] = {}
    for index, text in enumerate(texts["retain"]):
        places.setdefault(text, index)
    exact = tuple(
        Pair(forget=index, retain=places[text], share=1.0)
        for index, text in enumerate(texts["forget"])
        if text in places
    )
    same = {pair.forget for pair in exact}
    grams = _grams(texts["retain"], tokenizer, progress)
    near = tuple(
        pair
        for pair in _nearest(_grams(texts["forget"], tokenizer, progress), grams)
        if pair.share >= NEAR and pair.forget not in same
    )
    return Overlap(exact=exact, near=near, sentence=_sentence(exact, near, len(texts["forget"])))


def row_text(row: Row, template: AnyTemplate) -> str:
    """Return a row's question and answer, its conversation, or its text.

    Raises:
        DataError: a field is missing or is not text.
    """
    template.check(row)
    if isinstance(template, TextTemplate):
        return template.answer_of(row)
    if isinstance(template, ChatTemplate) and template.messages in row:
        return "\n".join(str(message["content"]) for message in row[template.messages])
    return f"{row[template.question]}\n{row[template.answer]}"


def _plain(row: Row, template: AnyTemplate) -> str:
    """Return a row's text in lower case and single spaces."""
    return " ".join(row_text(row, template).casefold().split())


def _grams(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, progress: ProgressCallback
) -> list[frozenset[tuple[int, ...]]]:
    found = []
    for index, text in enumerate(texts):
        if index % _EVERY == 0:
            progress("n-grams", index, len(texts))
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        last = max(1, len(ids) - N + 1)
        found.append(frozenset(tuple(ids[k : k + N]) for k in range(last)))
    progress("n-grams", len(texts), len(texts))
    return found


def _nearest(
    forget: Sequence[frozenset[tuple[int, ...]]], retain: Sequence[frozenset[tuple[int, ...]]]
) -> list[Pair]:
    """Return of each forget row the retain row with which it shares most, if any."""
    wanted = frozenset().union(*forget)
    holders: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, grams in enumerate(retain):
        for gram in grams & wanted:
            holders[gram].append(index)
    pairs = []
    for place, grams in enumerate(forget):
        shared = Counter(index for gram in grams for index in holders.get(gram, ()))
        shares = {i: count / min(len(grams), len(retain[i])) for i, count in shared.items()}
        if shares:
            best = max(shares, key=lambda index: (shares[index], -index))
            pairs.append(Pair(forget=place, retain=best, share=shares[best]))
    return pairs


def _sentence(exact: Sequence[Pair], near: Sequence[Pair], rows: int) -> str:
    if not (exact or near):
        return f"None of the {rows} forget rows is in the retain set, nor is one nearly."
    parts = []
    if exact:
        parts.append(f"{len(exact)} of {rows} forget rows are in the retain set, word for word")
    if near:
        parts.append(f"{len(near)} of {rows} share at least half of their n-grams with a row there")
    return (
        f"{'; '.join(parts)}. A run would teach again what it is to forget: take these rows out of "
        f"the retain set."
    )
