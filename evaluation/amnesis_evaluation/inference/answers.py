"""From sets of rows to answers: what is asked for is scored or generated, everything once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from amnesis.contracts import (
    Answer,
    EvaluationSettings,
    ReadingMetric,
    Row,
    Subject,
    TokenScores,
)
from amnesis.data.batches import pad_token_id
from amnesis.data.examples import Example, encode_rows
from amnesis.data.templates import AnyTemplate, Encoded, TextTemplate
from amnesis.errors import DataError
from amnesis.progress import ProgressCallback
from amnesis_evaluation.inference.generation import Prompt, end_tokens, generate
from amnesis_evaluation.inference.gradient_norm import gradient_norms
from amnesis_evaluation.inference.teacher_forcing import read_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Form:
    """How a set is asked where that is not the subject's own way.

    ``stop`` are texts at which a generated answer ends; they are cut off with what follows.
    """

    template: AnyTemplate | None = None
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()


Forms = Mapping[str, Form]


@dataclass(frozen=True)
class Asked:
    """What the metrics of one set read of it."""

    further: frozenset[str] = frozenset()
    moments: bool = False
    generation: bool = False
    gradient: bool = False

    @classmethod
    def by(cls, metrics: Iterable[ReadingMetric]) -> Asked:
        """Collect what ``metrics`` read."""
        listed = list(metrics)
        return cls(
            frozenset(f for m in listed for f in (*m.texts, *m.optional_texts)),
            any(m.reads_moments for m in listed),
            any(m.reads == "generation" for m in listed),
            any(m.reads == "gradient" for m in listed),
        )


@dataclass(frozen=True)
class SetAnswers:
    """The answers of one set, and the row that each belongs to."""

    rows: tuple[int, ...]
    answers: tuple[Answer, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Item:
    set_name: str
    template: AnyTemplate
    example: Example
    further: Mapping[str, tuple[Encoded, ...]]

    @property
    def encoded(self) -> Encoded:
        return self.example.sequences["answer"]


def answers_of(
    subject: Subject,
    sets: Mapping[str, Sequence[Row]],
    asked: Mapping[str, Asked],
    settings: EvaluationSettings,
    progress: ProgressCallback | None = None,
    forms: Forms | None = None,
) -> dict[str, SetAnswers]:
    """Read every set in one teacher-forced pass over all of them, and generate where asked.

    An example of which truncation leaves no label, in its answer or in a further text that is
    asked for, is left out and noted; so are those of which it leaves the beginning alone.

    Raises:
        DataError: a row lacks a field, or a set has no usable example.
    """
    forms = {name: (forms or {}).get(name, Form()) for name in asked}
    items, notes = _items(subject, sets, asked, settings, forms)
    scores = _scored(subject, items, asked, settings, progress)
    answers = [_answer(item, scores, subject) for item in items]
    answers = _with_generated(subject, items, answers, asked, settings, progress, forms)
    answers = _with_gradients(subject, items, answers, asked, progress)
    by_set: dict[str, SetAnswers] = {}
    for name in asked:
        own = [
            (i.example.index, a) for i, a in zip(items, answers, strict=True) if i.set_name == name
        ]
        by_set[name] = SetAnswers(
            tuple(row for row, _ in own), tuple(answer for _, answer in own), notes[name]
        )
    return by_set


def _items(
    subject: Subject,
    sets: Mapping[str, Sequence[Row]],
    asked: Mapping[str, Asked],
    settings: EvaluationSettings,
    forms: Forms,
) -> tuple[list[_Item], dict[str, tuple[str, ...]]]:
    """Encode every set's examples with their further texts; note those that do not fit."""
    items: list[_Item] = []
    notes: dict[str, tuple[str, ...]] = {}
    for name, wanted in asked.items():
        whole = forms[name].template or subject.template
        template = whole.within(subject.model.config)
        rows = list(sets[name])[: settings.limit]
        examples = encode_rows(rows, subject.tokenizer, template, name=name)
        fit = Fit(template, model_limits=template is not whole, dropped=examples.dropped)
        for example in examples.examples:
            try:
                further = _further(example.row, wanted.further, subject, template)
            except DataError as error:
                raise DataError(f"set {name!r}, row {example.index}: {error}") from None
            texts = [example.sequences["answer"], *(t for ts in further.values() for t in ts)]
            if fit.holds(texts):
                items.append(_Item(name, template, example, further))
        notes[name] = fit.notes(name)
    return items, notes


@dataclass
class Fit:
    """How many examples of a set fit whole, in part or not at all, and into what."""

    template: AnyTemplate
    model_limits: bool
    whole: int = 0
    cut: int = 0
    dropped: int = 0

    def holds(self, texts: Sequence[Encoded]) -> bool:
        """Count an example by its texts, and say whether something of each of them is left."""
        if not all(text.label_count > 0 for text in texts):
            self.dropped += 1
            return False
        if any(text.truncated for text in texts):
            self.cut += 1
        else:
            self.whole += 1
        return True

    def notes(self, name: str) -> tuple[str, ...]:
        """Say what did not fit."""
        kept, tokens = self.whole + self.cut, self.template.max_length
        limit = (
            f"the model's {tokens} positions"
            if self.model_limits
            else f"the template's max_length, {tokens} tokens"
        )
        found = []
        if self.dropped:
            found.append(
                f"set {name!r}: {self.dropped} of {self.dropped + kept} examples left out, because "
                f"nothing of a text fits into {limit}"
            )
        if self.cut:
            found.append(
                f"set {name!r}: {self.cut} of {kept} examples evaluated by the beginning of a text, "
                f"because the whole does not fit into {limit}"
            )
        return tuple(found)


def _further(
    row: Row, fields: frozenset[str], subject: Subject, template: AnyTemplate
) -> dict[str, tuple[Encoded, ...]]:
    prompt = template.prompt_of(row, subject.tokenizer)
    found: dict[str, tuple[Encoded, ...]] = {}
    for name in sorted(fields):
        value = row.get(name)
        if value is None:
            continue
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, Sequence) or not all(isinstance(t, str) and t for t in texts):
            raise DataError(f"field {name!r} must be text or a list of texts, but is {value!r:.80}")
        if texts:
            found[name] = tuple(template.encode(prompt, text, subject.tokenizer) for text in texts)
    return found


def _scored(
    subject: Subject,
    items: Sequence[_Item],
    asked: Mapping[str, Asked],
    settings: EvaluationSettings,
    progress: ProgressCallback | None,
) -> dict[str, TokenScores]:
    """Return the scores of every text by its key; moments only where they are read."""
    deep = {i.encoded.key: i.encoded for i in items if asked[i.set_name].moments}
    every = [t for i in items for t in (i.encoded, *(t for ts in i.further.values() for t in ts))]
    plain = {text.key: text for text in every if text.key not in deep}
    scores: dict[str, TokenScores] = {}
    for texts, moments in ((plain, False), (deep, True)):
        read = read_texts(
            subject.model,
            list(texts.values()),
            pad_token_id=pad_token_id(subject.tokenizer),
            batch_size=settings.batch_size,
            moments=moments,
            progress=progress,
        )
        scores |= dict(zip(texts, read, strict=True))
    return scores


def _answer(item: _Item, scores: Mapping[str, TokenScores], subject: Subject) -> Answer:
    own = scores[item.encoded.key]
    return Answer(
        item.example.row,
        own.logps,
        own.correct,
        text=reference_of(item.example, item.template, subject),
        moments=own.moments,
        further={
            name: tuple(scores[text.key] for text in texts) for name, texts in item.further.items()
        },
    )


def reference_of(example: Example, template: AnyTemplate, subject: Subject) -> str:
    """Return the text that an example's labels stand for."""
    # A plain text may be one chunk of several: what it answers is what its labels spell.
    if isinstance(template, TextTemplate):
        encoded = example.sequences["answer"]
        return text_of(encoded.input_ids[encoded.prompt_length :], subject)
    return template.answer_of(example.row)


def _with_generated(
    subject: Subject,
    items: Sequence[_Item],
    answers: Sequence[Answer],
    asked: Mapping[str, Asked],
    settings: EvaluationSettings,
    progress: ProgressCallback | None,
    forms: Forms,
) -> list[Answer]:
    chosen = [
        place
        for name in asked
        for place in [i for i, item in enumerate(items) if item.set_name == name][
            : settings.generate_rows
        ]
        if asked[name].generation
    ]
    written = generate(
        subject.model,
        [
            prompt_of(
                items[i].encoded,
                subject.model,
                settings,
                longest=forms[items[i].set_name].max_new_tokens,
            )
            for i in chosen
        ],
        end=end_tokens(subject.model, subject.tokenizer),
        pad_token_id=pad_token_id(subject.tokenizer),
        batch_size=settings.batch_size,
        progress=progress,
    )
    completed = list(answers)
    for place, tokens in zip(chosen, written, strict=True):
        text = stopped(text_of(tokens, subject), forms[items[place].set_name].stop)
        completed[place] = replace(answers[place], generated=text)
    return completed


def stopped(text: str, stop: Sequence[str]) -> str:
    """Cut a text at the first of ``stop`` that it holds."""
    ends = [place for place in map(text.find, stop) if place >= 0]
    return text[: min(ends)].strip() if ends else text


def prompt_of(
    encoded: Encoded,
    model: PreTrainedModel,
    settings: EvaluationSettings,
    seed: int = 0,
    longest: int | None = None,
) -> Prompt:
    """Return the tokens before the first label: the boundary that teacher forcing has."""
    limit = min(settings.max_new_tokens, longest or settings.max_new_tokens)
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions:
        limit = min(limit, positions - encoded.prompt_length)
    if settings.length_cap is not None:
        limit = min(limit, math.ceil(settings.length_cap * encoded.label_count))
    return Prompt(encoded.input_ids[: encoded.prompt_length], max(limit, 0), seed)


def text_of(tokens: Sequence[int], subject: Subject) -> str:
    """Return generated tokens as text, without special tokens and surrounding space."""
    text: Any = subject.tokenizer.decode(list(tokens), skip_special_tokens=True)
    return str(text).strip()


def _with_gradients(
    subject: Subject,
    items: Sequence[_Item],
    answers: Sequence[Answer],
    asked: Mapping[str, Asked],
    progress: ProgressCallback | None,
) -> list[Answer]:
    chosen = [i for i, item in enumerate(items) if asked[item.set_name].gradient]
    norms = gradient_norms(
        subject.model,
        [items[i].encoded for i in chosen],
        pad_token_id=pad_token_id(subject.tokenizer),
        progress=progress,
    )
    completed = list(answers)
    for place, norm in zip(chosen, norms, strict=True):
        completed[place] = replace(answers[place], gradient_norm=norm)
    return completed
