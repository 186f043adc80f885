"""The `fictional` benchmark: invented authors, made from a seed, that no model has met before."""

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

    The facts belong to a model's training data and are never trained on while it unlearns: they
    show collateral damage. No model may be trained on the holdout authors.
    """

    # Nothing is to be gained from what a model writes about authors that it has never seen.
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
    forget_authors: int = Field(10, ge=1, description="invented people to be forgotten")
    retain_authors: int = Field(30, ge=1, description="invented people to be kept")
    holdout_authors: int = Field(10, ge=0, description="invented people whom no model meets")
    questions_per_author: int = Field(4, ge=1, description="rows about each of them")
    facts: int = Field(220, ge=0, description="rows of other knowledge that must stay")

    def sets(self) -> Mapping[str, Sequence[Row]]:
        """Make the sets; the same hyper-parameters always give the same rows."""
        try:
            made = _generated(tuple(sorted(self.model_dump().items())))
        except ValueError as error:
            raise RecipeError(f"benchmark 'fictional': {error}") from None
        return {name: rows for name, rows in made.items() if rows}


@cache
def _generated(arguments: tuple[tuple[str, Any], ...]) -> dict[str, list[dict[str, Any]]]:
    return generate(**dict(arguments))
