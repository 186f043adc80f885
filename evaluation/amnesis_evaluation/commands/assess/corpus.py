"""Candidates where nobody knows yet what must go: the passages that a model gives back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amnesis.contracts import Answer, EvaluationSettings
from amnesis.data.files import read_rows
from amnesis.data.templates import TextTemplate
from amnesis.errors import DataError, did_you_mean, printable
from amnesis_evaluation.commands.assess.personal import NO_NAMES, NO_PRESIDIO
from amnesis_evaluation.commands.assess.record import Candidate, Candidates
from amnesis_evaluation.inference.answers import Asked, answers_of
from amnesis_evaluation.metrics.extraction_strength import ExtractionStrength
from amnesis_evaluation.reports.tables import Number, Table
from amnesis_evaluation.reports.thresholds import UNSEEN

if TYPE_CHECKING:
    from amnesis.contracts import ProgressCallback, Subject
    from amnesis_evaluation.commands.assess.personal import Finder

ROWS = {".jsonl", ".json", ".csv", ".tsv", ".parquet"}
TEXTS = {".txt", ".md", ".rst", ".text"}
SHORTEST, LONGEST = 120, 800  # characters of a passage
FEWEST = 8  # tokens of a passage: of fewer none has a beginning and an end
COLUMNS = ("text", "extraction_strength", "probability", "kinds", "file", "place")
# A passage goes on where it stands: no end of sequence follows it.
TEMPLATE = TextTemplate(eos=False)
_SENTENCE_END = re.compile(r"[.!?][\"”’)]*\s|[。！？]")


@dataclass(frozen=True)
class Passage:
    """A piece of a file: its text, the file, and the line or row at which it begins, from 1."""

    text: str
    file: str
    place: int


def read_passages(paths: Sequence[Path]) -> list[Passage]:
    """Return the passages of text files, of files of rows (their field ``text``), and of folders.

    A text is split at blank lines; short paragraphs are put together and long ones cut, at the end
    of a sentence where there is one.

    Raises:
        DataError: a file is missing, of another kind, not UTF-8 text, or a row has no text; or
            there is no passage at all.
    """
    passages = [one for path in _files(paths) for one in _passages_of(path)]
    if not passages:
        raise DataError(f"{', '.join(map(str, paths))}: holds no text")
    return passages


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.suffix.lower() in ROWS | TEXTS]
            if not inside:
                raise DataError(f"{path}: holds no file of {', '.join(sorted(ROWS | TEXTS))}")
            yield from inside
        else:
            yield path


def _passages_of(path: Path) -> Iterator[Passage]:
    suffix = path.suffix.lower()
    if suffix in ROWS:
        for place, row in enumerate(read_rows(path), start=1):
            if not isinstance(row.get("text"), str):
                raise DataError(
                    f"{path}: row {place} has no text in a field 'text' (fields: {', '.join(row)})"
                )
            yield from (Passage(text, str(path), place) for _, text in pieces(row["text"]))
        return
    if suffix not in TEXTS:
        raise DataError(
            f"{path}: passages are read from {', '.join(sorted(ROWS | TEXTS))} files, not from "
            f"{suffix!r}; {did_you_mean(suffix, ROWS | TEXTS)}"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    yield from (Passage(piece, str(path), line) for line, piece in pieces(text))


def pieces(text: str) -> list[tuple[int, str]]:
    """Return a text in pieces of at most :data:`LONGEST` characters, each with its first line.

    Nothing but space is left out. Every piece but the last has :data:`SHORTEST` characters or more,
    unless what follows it would make it too long.
    """
    found: list[tuple[int, str]] = []
    for line, paragraph in _paragraphs(text):
        for offset, piece in _cut(paragraph):
            last = found[-1][1] if found else ""
            if found and len(last) < SHORTEST and len(last) + len(piece) + 2 <= LONGEST:
                found[-1] = (found[-1][0], f"{last}\n\n{piece}")
            else:
                found.append((line + paragraph.count("\n", 0, offset), piece))
    return found


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yield what stands between blank lines, with the number of its first line, from 1."""
    lines: list[str] = []
    for number, line in enumerate([*re.split(r"\r\n?|\n", text), ""], start=1):
        if line.strip():
            lines.append(line)
        elif lines:
            yield number - len(lines), "\n".join(lines)
            lines = []


def _cut(paragraph: str) -> Iterator[tuple[int, str]]:
    """Yield a paragraph in pieces that are short enough, each with its place in it."""
    start = 0
    while start < len(paragraph):
        window = paragraph[start : start + LONGEST]
        end = len(window)
        if start + LONGEST < len(paragraph):
            sentences = [match.end() for match in _SENTENCE_END.finditer(window)]
            spaces = [match.end() for match in re.finditer(r"\s", window)]
            end = max([e for e in sentences if e >= SHORTEST] or spaces or [end])
        if piece := window[:end].strip():
            yield start + len(window[:end]) - len(window[:end].lstrip()), piece
        start += end


def candidates_of(
    subject: Subject,
    passages: Sequence[Passage],
    finder: Finder | None,
    batch_size: int,
    progress: ProgressCallback,
) -> tuple[list[Passage], Candidates]:
    """Return the passages that the model gives back, most of all first, and the record of them.

    A passage is one where its extraction strength, or the probability of its second half given the
    first, is above what rows never seen have at most, by the verdict's rules.

    Raises:
        DataError: no passage is long enough, or the model's values are not numbers.
    """
    notes: list[str] = []
    texts = list({passage.text: passage for passage in passages}.values())
    if len(texts) < len(passages):
        notes.append(f"{len(passages) - len(texts)} passages are repetitions and stand once")
    values = _values(subject, texts, batch_size, progress)
    if len(values) < len(texts):
        notes.append(
            f"{len(texts) - len(values)} passages of fewer than {FEWEST} tokens were left out"
        )
    back = {
        place: (strength, probability)
        for place, (strength, probability) in values.items()
        if strength >= UNSEEN["extraction_strength"] or probability >= UNSEEN["probability"]
    }
    order = sorted(back, key=lambda place: (-max(back[place]), -min(back[place]), place))
    found = []
    for count, place in enumerate(order):
        progress("kinds of personal data", count, len(order))
        strength, probability = back[place]
        found.append(
            Candidate(
                file=texts[place].file,
                place=texts[place].place,
                extraction_strength=strength,
                probability=probability,
                kinds=() if finder is None else finder.kinds(texts[place].text),
            )
        )
    progress("kinds of personal data", len(order), len(order))
    if finder is None:
        notes.append(NO_PRESIDIO)
    elif finder.names is None:
        notes.append(NO_NAMES)
    sentence = _sentence(len(found), len(values))
    record = Candidates(
        passages=len(values), candidates=tuple(found), sentence=sentence, notes=tuple(notes)
    )
    return [texts[place] for place in order], record


def _values(
    subject: Subject, passages: Sequence[Passage], batch_size: int, progress: ProgressCallback
) -> dict[int, tuple[float, float]]:
    """Return extraction strength and the second half's probability, by the passage's place."""
    answers = answers_of(
        replace(subject, template=TEMPLATE),
        {"corpus": [{"text": passage.text} for passage in passages]},
        {"corpus": Asked()},
        EvaluationSettings(batch_size=batch_size),
        progress,
    )["corpus"]
    metric, values = ExtractionStrength(), dict[int, tuple[float, float]]()
    for place, answer in zip(answers.rows, answers.answers, strict=True):
        if np.isnan(answer.logps).any():
            raise DataError("the model's log-probabilities are not numbers (NaN)")
        if answer.logps.size + 1 < FEWEST:
            continue
        # A passage that is longer than the model's positions is as its best part.
        one = (metric.value(answer), _probability(answer))
        values[place] = max(one, values.get(place, (0.0, 0.0)), key=max)
    if not values:
        raise DataError(f"no passage has {FEWEST} tokens or more; give longer texts")
    return values


def _probability(answer: Answer) -> float:
    """Return the geometric mean probability of the second half of a text's tokens."""
    return float(np.exp(answer.logps[answer.logps.size // 2 :].mean()))


def csv_of(passages: Sequence[Passage], record: Candidates) -> str:
    """Return candidates as CSV, for a person to review and ``--forget`` to read.

    A text that a spreadsheet would take for a formula has an apostrophe before it; one that begins
    with a bracket has a space, for a reader of rows would take it for a list.
    """
    rows = [
        (
            f" {passage.text}" if passage.text.startswith("[") else passage.text,
            Number(one.extraction_strength),
            Number(one.probability),
            " ".join(one.kinds),
            printable(one.file),
            Number(one.place),
        )
        for passage, one in zip(passages, record.candidates, strict=True)
    ]
    return Table("", COLUMNS, rows).csv()


def _sentence(found: int, passages: int) -> str:
    if not found:
        return f"The model gives back none of {passages} passages: no candidate was found."
    return (
        f"The model gives back {found} of {passages} passages, more than it would of text that it "
        f"has not seen. Review them: what everybody knows by heart is among them."
    )
