"""From sets of rows to answers: scores and generated texts, each computed once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

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
    """How a set is asked, where that differs from the subject's template and the settings.

    ``stop`` holds texts at which a generated answer ends; the first of them and all that follows it
    are cut off. ``reference_tokens`` cuts the answer that it is held against, special tokens
    counted.
    """

    template: AnyTemplate | None = None
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    reference_tokens: int | None = None


Forms = Mapping[str, Form]


@dataclass(frozen=True)
class Asked:
    """What the metrics of one set read of it: further texts by field, and kinds of passes."""

    further: frozenset[str] = frozenset()
    moments: bool = False
    generation: bool = False
    gradient: bool = False

    @classmethod
    def by(cls, metrics: Iterable[ReadingMetric]) -> Asked:
        """Return what any of ``metrics`` reads."""
        readers = list(metrics)
        return cls(
            frozenset(f for m in readers for f in (*m.texts, *m.optional_texts)),
            any(m.reads_moments for m in readers),
            any(m.reads == "generation" for m in readers),
            any(m.reads == "gradient" for m in readers),
        )


@dataclass(frozen=True)
class SetAnswers:
    """The answers of one set, the index of the row that each belongs to, and notes.

    ``encoded`` holds the tokens that each answer's scores are of.
    """

    rows: tuple[int, ...]
    answers: tuple[Answer, ...]
    notes: tuple[str, ...] = ()
    encoded: tuple[Encoded, ...] = ()


@dataclass(frozen=True)
class _Item:
    set_name: str
    template: AnyTemplate
    end: int | None  # the token that ends an answer
    example: Example
    further: Mapping[str, tuple[Encoded, ...]]

    @property
    def encoded(self) -> Encoded:
        return self.example.sequences["answer"]


def answers_of(
    subject: Subject,
    sets: Mapping[str, Sequence[Row]],
    needs: Mapping[str, Asked],
    settings: EvaluationSettings,
    progress: ProgressCallback | None = None,
    forms: Forms | None = None,
) -> dict[str, SetAnswers]:
    """Return the answers to every set of ``needs``, from one teacher-forced pass over all sets.

    Texts are generated, and gradients computed, only for the sets whose metrics read them. An
    example is left out if truncation leaves no label of its answer or of a further text; the notes
    count these examples, and those of which it leaves the beginning.

    Raises:
        DataError: a row lacks a field, or a set has no usable example.
    """
    forms = {name: (forms or {}).get(name, Form()) for name in needs}
    items, notes = _items(subject, sets, needs, settings, forms)
    scores = _scores(subject, items, needs, settings, progress)
    answers = [_answer(item, scores, subject, forms[item.set_name]) for item in items]
    answers = _with_generated(subject, items, answers, needs, settings, progress, forms)
    answers = _with_gradients(subject, items, answers, needs, progress)
    by_set: dict[str, SetAnswers] = {}
    for name in needs:
        pairs = [(i, a) for i, a in zip(items, answers, strict=True) if i.set_name == name]
        by_set[name] = SetAnswers(
            tuple(item.example.index for item, _ in pairs),
            tuple(answer for _, answer in pairs),
            notes[name],
            tuple(item.encoded for item, _ in pairs),
        )
    return by_set


def _items(
    subject: Subject,
    sets: Mapping[str, Sequence[Row]],
    needs: Mapping[str, Asked],
    settings: EvaluationSettings,
    forms: Forms,
) -> tuple[list[_Item], dict[str, tuple[str, ...]]]:
    """Return every set's encoded examples with their further texts, and notes on what is cut."""
    items: list[_Item] = []
    notes: dict[str, tuple[str, ...]] = {}
    for name, need in needs.items():
        base = forms[name].template or subject.template
        template = base.within(subject.model.config)
        rows = list(sets[name])[: settings.limit]
        examples = encode_rows(rows, subject.tokenizer, template, name=name)
        fit = Fit(template, model_limits=template is not base, dropped=examples.dropped)
        end = template.end_of(subject.tokenizer)
        for example in examples.examples:
            try:
                further = _further(example.row, need.further, subject, template)
            except DataError as error:
                raise DataError(f"set {name!r}, row {example.index}: {error}") from None
            texts = [example.sequences["answer"], *(t for ts in further.values() for t in ts)]
            if fit.holds(texts):
                items.append(_Item(name, template, end, example, further))
        notes[name] = fit.notes(name)
    return items, notes


@dataclass
class Fit:
    """Counts the examples of a set that fit into a length whole, in part or not at all."""

    template: AnyTemplate
    model_limits: bool
    whole: int = 0
    cut: int = 0
    dropped: int = 0

    def holds(self, texts: Sequence[Encoded]) -> bool:
        """Count an example by its texts, and return whether each of them has a label left."""
        if not all(text.label_count > 0 for text in texts):
            self.dropped += 1
            return False
        if any(text.truncated for text in texts):
            self.cut += 1
        else:
            self.whole += 1
        return True

    def notes(self, name: str) -> tuple[str, ...]:
        """Return a note for each kind of example of the set ``name`` that does not fit whole."""
        kept, tokens = self.whole + self.cut, self.template.max_length
        limit = (
            f"the model's {tokens} positions"
            if self.model_limits
            else f"the template's max_length, {tokens} tokens"
        )
        notes = []
        if self.dropped:
            notes.append(
                f"set {name!r}: {self.dropped} of {self.dropped + kept} examples left out, because "
                f"nothing of a text fits into {limit}"
            )
        if self.cut:
            notes.append(
                f"set {name!r}: {self.cut} of {kept} examples evaluated by the beginning of a "
                f"text, because the whole does not fit into {limit}"
            )
        return tuple(notes)


def _further(
    row: Row, fields: frozenset[str], subject: Subject, template: AnyTemplate
) -> dict[str, tuple[Encoded, ...]]:
    encoded: dict[str, tuple[Encoded, ...]] = {}
    for name in sorted(fields):
        value = row.get(name)
        if value is None:
            continue
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, Sequence) or not all(isinstance(t, str) and t for t in texts):
            raise DataError(f"field {name!r} must be text or a list of texts, but is {value!r:.80}")
        if texts:
            encoded[name] = tuple(template.encode(row, subject.tokenizer, text) for text in texts)
    return encoded


def _scores(
    subject: Subject,
    items: Sequence[_Item],
    needs: Mapping[str, Asked],
    settings: EvaluationSettings,
    progress: ProgressCallback | None,
) -> dict[str, TokenScores]:
    """Return the scores of every text by its key, with moments only where a metric reads them."""
    with_moments = {i.encoded.key: i.encoded for i in items if needs[i.set_name].moments}
    every = [t for i in items for t in (i.encoded, *(t for ts in i.further.values() for t in ts))]
    plain = {text.key: text for text in every if text.key not in with_moments}
    scores: dict[str, TokenScores] = {}
    for texts, moments in ((plain, False), (with_moments, True)):
        values = read_texts(
            subject.model,
            list(texts.values()),
            pad_token_id=pad_token_id(subject.tokenizer),
            batch_size=settings.batch_size,
            moments=moments,
            progress=progress,
        )
        scores |= dict(zip(texts, values, strict=True))
    return scores


def _answer(item: _Item, scores: Mapping[str, TokenScores], subject: Subject, form: Form) -> Answer:
    label_scores = scores[item.encoded.key]
    return Answer(
        item.example.row,
        label_scores.logps,
        label_scores.correct,
        text=reference_of(item.example, item.template, subject, form),
        has_end=item.end is not None and item.encoded.input_ids[-1] == item.end,
        moments=label_scores.moments,
        further={
            name: tuple(scores[text.key] for text in texts) for name, texts in item.further.items()
        },
    )


def reference_of(
    example: Example, template: AnyTemplate, subject: Subject, form: Form | None = None
) -> str:
    """Return the answer that an example's labels spell, or as much of it as ``form`` compares."""
    # An example of plain text may be one chunk of its row.
    if isinstance(template, TextTemplate):
        encoded = example.sequences["answer"]
        answer = text_of(encoded.input_ids[encoded.prompt_length :], subject).strip()
    else:
        answer = template.answer_of(example.row)
    if form is None or form.reference_tokens is None:
        return answer
    return text_of(subject.tokenizer(answer)["input_ids"][: form.reference_tokens], subject)


def _with_generated(
    subject: Subject,
    items: Sequence[_Item],
    answers: Sequence[Answer],
    needs: Mapping[str, Asked],
    settings: EvaluationSettings,
    progress: ProgressCallback | None,
    forms: Forms,
) -> list[Answer]:
    places = [
        place
        for name in needs
        for place in [i for i, item in enumerate(items) if item.set_name == name][
            : settings.generate_rows
        ]
        if needs[name].generation and not np.isnan(answers[place].logps).any()
    ]
    templates = {id(items[i].template): items[i].template for i in places}.values()
    continuations = generate(
        subject.model,
        [
            prompt_of(
                items[i].encoded,
                subject.model,
                settings,
                longest=forms[items[i].set_name].max_new_tokens,
            )
            for i in places
        ],
        end=end_tokens(subject.model, subject.tokenizer, *templates),
        pad_token_id=pad_token_id(subject.tokenizer),
        batch_size=settings.batch_size,
        engine=settings.engine,
        progress=progress,
    )
    result = list(answers)
    for place, tokens in zip(places, continuations, strict=True):
        text = stopped(text_of(tokens, subject), forms[items[place].set_name].stop)
        result[place] = replace(answers[place], generated=text)
    return result


def stopped(text: str, stop: Sequence[str]) -> str:
    """Return the part of a text before the first of ``stop``, without surrounding space."""
    ends = [place for place in map(text.find, stop) if place >= 0]
    return text[: min(ends, default=len(text))].strip()


def prompt_of(
    encoded: Encoded,
    model: PreTrainedModel,
    settings: EvaluationSettings,
    seed: int = 0,
    longest: int | None = None,
    draw: int = 0,
) -> Prompt:
    """Return the tokens before the first label, where teacher forcing begins too.

    ``draw`` numbers the samples of one seed. The limit of new tokens is the smallest of the
    settings', ``longest``, the positions that the model has left, and the settings' multiple of the
    reference answer.
    """
    limit = min(settings.max_new_tokens, longest or settings.max_new_tokens)
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions:
        limit = min(limit, positions - encoded.prompt_length)
    if settings.length_cap is not None:
        limit = min(limit, math.ceil(settings.length_cap * encoded.label_count))
    return Prompt(encoded.input_ids[: encoded.prompt_length], max(limit, 0), seed, draw)


def text_of(tokens: Sequence[int], subject: Subject) -> str:
    """Return the text of generated tokens, without special tokens."""
    text: Any = subject.tokenizer.decode(list(tokens), skip_special_tokens=True)
    return str(text)


def _with_gradients(
    subject: Subject,
    items: Sequence[_Item],
    answers: Sequence[Answer],
    needs: Mapping[str, Asked],
    progress: ProgressCallback | None,
) -> list[Answer]:
    places = [i for i, item in enumerate(items) if needs[item.set_name].gradient]
    norms = gradient_norms(
        subject.model,
        [items[i].encoded for i in places],
        pad_token_id=pad_token_id(subject.tokenizer),
        progress=progress,
    )
    result = list(answers)
    for place, norm in zip(places, norms, strict=True):
        result[place] = replace(answers[place], gradient_norm=norm)
    return result
