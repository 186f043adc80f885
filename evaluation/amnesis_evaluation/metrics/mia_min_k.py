"""Membership by the least likely tokens: a text never trained on has a few very unlikely ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from amnesis.contracts import Answer, ExampleMetric
from amnesis_evaluation.metrics.membership import MembershipInference

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray


class MinK(ExampleMetric):
    """Mean of the lowest share k of ``ℓ_i``."""

    formula: ClassVar[str] = "mean of the lowest k of ℓ_i"
    source: ClassVar[str] = "Shi et al. 2024, arXiv 2310.16789"

    k: float = Field(0.4, gt=0, le=1, description="share of the tokens, at least one")

    @property
    def key(self) -> str:
        """Its name, with k where it is not the default."""
        return super().key + ("" if self.k == 0.4 else f"_{self.k:g}")

    def value(self, answer: Answer) -> float:
        """Return the mean, at most 0."""
        return mean_of_lowest(answer.logps, self.k)


class MiaMinK(MembershipInference):
    """AUC by min-k. Source: Shi et al. 2024, arXiv 2310.16789. k is 40 %, as in MUSE."""

    formula: ClassVar[str] = "AUC of the mean of the lowest k of ℓ_i, forget against holdout"
    source: ClassVar[str] = "Shi et al. 2024, arXiv 2310.16789"

    k: float = Field(0.4, gt=0, le=1, description="share of the tokens, at least one")

    @property
    def score(self) -> ExampleMetric:
        """Min-k with the same k."""
        return MinK(k=self.k)


def mean_of_lowest(values: NDArray[float64], share: float) -> float:
    """Return the mean of the lowest ``share`` of ``values``, ``(tokens,)``.

    The number of values is rounded down, but at least one.
    """
    count = max(1, int(values.size * share))
    return float(np.sort(values)[:count].mean())
