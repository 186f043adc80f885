"""Perplexity: how unexpected the tokens of a set's answers are to the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from amnesis.contracts import Answer, SetMetric


class Perplexity(SetMetric):
    """``exp(−Σ ℓ / N)`` over all N label tokens of a set; long answers weigh more. No deviation."""

    formula: ClassVar[str] = "exp(−Σ_i ℓ_i / N) over the set's label tokens"
    source: ClassVar[str] = "Jelinek et al. 1977"

    def value(self, answers: Sequence[Answer]) -> float:
        """Return the perplexity, at least 1."""
        return float(np.exp(-np.concatenate([answer.logps for answer in answers]).mean()))
