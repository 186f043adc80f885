"""What files of rows look like: which columns are asked and answered, and what they lack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amnesis.data.files import read_rows
from amnesis.errors import DataError, did_you_mean

# What people call a question and an answer, the likeliest first; in lower case.
_QUESTIONS = ("question", "prompt", "instruction", "query", "input", "frage", "pregunta", "q")
_ANSWERS = ("answer", "completion", "response", "output", "target", "antwort", "respuesta", "a")
_TEXTS = ("text", "content", "document", "body", "passage")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of rows a template reads; ``messages``, ``text``, or question and answer."""

    form: str
    question: str = "question"
    answer: str = "answer"
    text: str = "text"

    def names(self) -> list[str]:
        """Return the columns that every row must have."""
        if self.form == "text":
            return [self.text]
        return ["messages"] if self.form == "messages" else [self.question, self.answer]


def look(path: Path) -> list[dict[str, Any]]:
    """Return a file's rows.

    Raises:
        DataError: it cannot be read.
    """
    return read_rows(path)


def columns_of(
    rows: Sequence[dict[str, Any]], where: Path, question: str | None, answer: str | None
) -> Columns:
    """Return what the rows' columns are, by their names or else by what stands in them.

    Raises:
        DataError: a column that is named is not there, or none looks like a question.
    """
    names = [name for name in rows[0] if isinstance(name, str)]
    for option, name in (("--question", question), ("--answer", answer)):
        if name is not None and name not in names:
            raise DataError(f"{where}: {option} {name}: {did_you_mean(name, names)}")
    if "messages" in names and question is None and answer is None:
        return Columns(form="messages")
    texts = [name for name in names if _is_text(rows, name)]
    by_lower_case = {name.lower().strip(): name for name in reversed(texts)}
    asked = question or next((by_lower_case[n] for n in _QUESTIONS if n in by_lower_case), None)
    told = answer or next((by_lower_case[n] for n in _ANSWERS if n in by_lower_case), None)
    rest = [name for name in texts if name not in (asked, told)]
    if asked is None and told is None and not (question or answer):
        plain = next((by_lower_case[n] for n in _TEXTS if n in by_lower_case), None)
        if plain is not None or len(texts) == 1:
            return Columns(form="text", text=plain or texts[0])
    asked = asked or next((name for name in rest if _asks(rows, name)), None)
    rest = [name for name in rest if name != asked]
    told = told or (rest[0] if len(rest) == 1 else None)
    if asked is None or told is None:
        raise DataError(
            f"{where}: which column is asked, and which answered? It has {', '.join(names)}; say "
            f"--question NAME --answer NAME"
        )
    return Columns(form="question_answer", question=asked, answer=told)


def check_columns(rows: Sequence[dict[str, Any]], where: Path, columns: Columns) -> None:
    """Refuse a file whose columns are called otherwise than the forget set's.

    Raises:
        DataError: naming the column.
    """
    for name in columns.names():
        if name not in rows[0]:
            raise DataError(
                f"{where}: has no column {name!r}, which the rows to forget have; "
                f"{did_you_mean(name, rows[0])}; call columns alike in all files"
            )


def _is_text(rows: Sequence[dict[str, Any]], name: str) -> bool:
    return all(isinstance(row.get(name), str) and bool(row[name].strip()) for row in rows[:50])


def _asks(rows: Sequence[dict[str, Any]], name: str) -> bool:
    """Whether most of a column's texts end as questions do."""
    ends: list[bool] = [row[name].rstrip().endswith(("?", "？", "؟", ";")) for row in rows[:50]]
    return sum(ends) > len(ends) / 2
