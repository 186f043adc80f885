"""Your own files: what is to be forgotten, what is to be kept, and whatever else there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from amnesis.contracts import Row
from amnesis.errors import DataError
from amnesis.files import read_rows
from amnesis_evaluation.benchmarks.sets import SetsBenchmark

Source = Path | list[dict[str, Any]]


class Own(SetsBenchmark):
    """Sets from files (.jsonl, .json, .csv, .parquet) or lists of rows, with every metric that
    they allow.

    ``paraphrase`` and ``perturbed`` hold further texts of forget or retain rows, found by their
    question: ``paraphrased_question``, ``paraphrased_answer``, ``perturbed_answer`` (a list; in a
    CSV, a JSON list). Rows that hold these fields themselves need no such file.
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
    facts: Source | None = Field(None, description="other knowledge that must stay")
    paraphrase: Source | None = Field(None, description="paraphrased questions and answers")
    perturbed: Source | None = Field(None, description="wrong answers, by question")
    question: str = Field("question", description="the field by which further texts are found")

    def sets(self) -> Mapping[str, Sequence[Row]]:
        """Read the sets, each row completed by its further texts."""
        sets = {
            name: self._rows(source)
            for name in ("forget", "retain", "holdout", "facts")
            if (source := getattr(self, name)) is not None
        }
        for name in ("paraphrase", "perturbed"):
            source = getattr(self, name)
            if source is not None:
                sets = self._completed(sets, self._rows(source), name)
        return sets

    def _rows(self, source: Source) -> list[dict[str, Any]]:
        return read_rows(source) if isinstance(source, Path) else source

    def _completed(
        self, sets: Mapping[str, list[dict[str, Any]]], further: list[dict[str, Any]], name: str
    ) -> dict[str, list[dict[str, Any]]]:
        by_question: dict[Any, dict[str, Any]] = {}
        for index, row in enumerate(further):
            if self.question not in row:
                raise DataError(f"{name}: row {index} has no field {self.question!r}")
            by_question[row[self.question]] = row
        known = {row.get(self.question) for rows in sets.values() for row in rows}
        if strangers := [question for question in by_question if question not in known]:
            raise DataError(
                f"{name}: no set has a row with the question {strangers[0]!r} "
                f"({len(strangers)} of {len(by_question)} rows match none)"
            )
        return {
            set_name: [{**by_question.get(row.get(self.question), {}), **row} for row in rows]
            for set_name, rows in sets.items()
        }
