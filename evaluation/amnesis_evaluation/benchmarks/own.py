"""A benchmark of your own files: rows to forget, rows to keep, and further sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from amnesis.contracts import Row
from amnesis.data.files import read_rows
from amnesis.errors import DataError
from amnesis_evaluation.benchmarks.sets import SetsBenchmark

Source = Path | list[dict[str, Any]]

_FURTHER = ("paraphrased_question", "paraphrased_answer", "perturbed_answer")


class Own(SetsBenchmark):
    """Sets from files (.jsonl, .json, .csv, .parquet) or lists of rows.

    Every metric that the sets allow is evaluated. ``paraphrase`` and ``perturbed`` hold further
    texts of the sets' rows, matched by question: ``paraphrased_question``, ``paraphrased_answer``
    and ``perturbed_answer`` (a list; in a CSV file a JSON list, or one row for each wrong answer).
    Rows that have these fields themselves need no such file. Either all rows of a set have them or
    none has.
    """

    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = (
        "probability",
        "choice_probability",
        "rouge_l",
        "truth_ratio",
        "extraction_strength",
        "exact_memorization",
        "perplexity",
        "ngram_entropy",
        "forget_quality",
        "mia_loss",
        "mia_zlib",
        "mia_min_k",
        "mia_min_k_plus",
        "mia_reference",
        "privleak",
    )

    forget: Source = Field(description="rows to forget: a file, or a list of rows")
    retain: Source = Field(description="rows to keep")
    holdout: Source | None = Field(None, description="rows like the forget set's, never trained on")
    facts: Source | None = Field(None, description="rows of other knowledge, to show damage")
    paraphrase: Source | None = Field(None, description="paraphrased questions and answers")
    perturbed: Source | None = Field(None, description="wrong answers, by question")
    question: str = Field("question", description="the field by which further texts are matched")

    def sets(self) -> Mapping[str, Sequence[Row]]:
        """Return the sets, each row completed by its further texts.

        Raises:
            DataError: a file cannot be read, a further text matches no row, a question has several
                paraphrases, or only some rows of a set have a further text.
        """
        sets = {
            name: self._rows(source)
            for name in ("forget", "retain", "holdout", "facts")
            if (source := getattr(self, name)) is not None
        }
        fields = {"paraphrased_answer"}
        for name in ("paraphrase", "perturbed"):
            source = getattr(self, name)
            if source is not None:
                further = self._rows(source)
                sets = self._join(sets, further, name)
                fields |= {key for row in further for key in row if key in _FURTHER}
        _check_even(sets, fields)
        return sets

    def _rows(self, source: Source) -> list[dict[str, Any]]:
        return read_rows(source) if isinstance(source, Path) else source

    def _join(
        self, sets: Mapping[str, list[dict[str, Any]]], further: list[dict[str, Any]], name: str
    ) -> dict[str, list[dict[str, Any]]]:
        by_question: dict[Any, list[dict[str, Any]]] = {}
        for index, row in enumerate(further):
            if self.question not in row:
                raise DataError(f"{name}: row {index} has no field {self.question!r}")
            by_question.setdefault(row[self.question], []).append(row)
        questions = {row.get(self.question) for rows in sets.values() for row in rows}
        if strangers := [question for question in by_question if question not in questions]:
            raise DataError(
                f"{name}: no set has a row with the question {strangers[0]!r} "
                f"({len(strangers)} of {len(by_question)} questions match none)"
            )
        duplicates = [question for question, rows in by_question.items() if len(rows) > 1]
        if duplicates and name == "paraphrase":
            raise DataError(
                f"paraphrase: the question {duplicates[0]!r} has several rows ({len(duplicates)} "
                f"of {len(by_question)} questions do), but one paraphrase is evaluated; keep one "
                f"row each"
            )
        texts = {question: _one_row(rows) for question, rows in by_question.items()}
        return {
            set_name: [{**texts.get(row.get(self.question), {}), **row} for row in rows]
            for set_name, rows in sets.items()
        }


def _one_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the rows of a question: its wrong answers, and fields that differ, become lists."""
    if len(rows) == 1:
        return rows[0]
    values: dict[str, list[Any]] = {}
    for row in rows:
        for key, value in row.items():
            values.setdefault(key, []).extend(value if isinstance(value, list) else [value])
    return {
        key: column
        if key == "perturbed_answer" or column != column[:1] * len(column)
        else column[0]
        for key, column in values.items()
    }


def _check_even(sets: Mapping[str, Sequence[Row]], fields: set[str]) -> None:
    """Refuse fields that only some rows of a set have: its mean would mix two definitions."""
    for name, rows in sets.items():
        for field in sorted(fields):
            count = sum(bool(row.get(field)) for row in rows)
            if 0 < count < len(rows):
                gap = next(index for index, row in enumerate(rows) if not row.get(field))
                raise DataError(
                    f"set {name!r}: {count} of {len(rows)} rows have {field!r}, row {gap} "
                    f"has none; give it for all of them, or for none"
                )
