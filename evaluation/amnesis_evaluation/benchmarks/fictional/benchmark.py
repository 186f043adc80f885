"""The `fictional` benchmark: authors invented from a seed, whom no model has met before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from pydantic import Field

from amnesis.contracts import Row
from amnesis.errors import RecipeError
from amnesis_evaluation.benchmarks.fictional.generator import generate
from amnesis_evaluation.benchmarks.sets import SetsBenchmark


class Fictional(SetsBenchmark):
    """Sets ``forget``, ``retain``, ``holdout`` and ``facts`` in TOFU's schema.

    The facts are part of a model's training data but no run trains on them while it unlearns: they
    show collateral damage. No model may be trained on the holdout authors.
    """

    # ROUGE-L needs generation, which is slow; on authors that no model has met it says nothing.
    metrics: ClassVar[tuple[str | dict[str, Any], ...]] = (
        "probability",
        "extraction_strength",
        "exact_memorization",
        "forget/rouge_l",
        "retain/rouge_l",
        "facts/rouge_l",
    )
    source: ClassVar[str] = "made here; schema of TOFU, arXiv 2401.06121"

    seed: int = Field(0, description="of the generator")
    forget_authors: int = Field(10, ge=1, description="invented people to forget")
    retain_authors: int = Field(30, ge=1, description="invented people to retain")
    holdout_authors: int = Field(10, ge=0, description="invented people that no model learns")
    questions_per_author: int = Field(4, ge=1, description="rows about each of them")
    facts: int = Field(220, ge=0, description="rows of other knowledge, to show damage")

    def sets(self) -> Mapping[str, Sequence[Row]]:
        """Return the sets that are not empty; equal hyper-parameters give equal rows.

        Raises:
            RecipeError: there are not enough names, topics or facts.
        """
        try:
            sets = _generate(tuple(sorted(self.model_dump().items())))
        except ValueError as error:
            raise RecipeError(f"benchmark 'fictional': {error}") from None
        return {name: rows for name, rows in sets.items() if rows}


@cache
def _generate(arguments: tuple[tuple[str, Any], ...]) -> dict[str, list[dict[str, Any]]]:
    return generate(**dict(arguments))
