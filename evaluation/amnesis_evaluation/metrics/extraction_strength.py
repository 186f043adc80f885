"""Extraction strength: how little of an answer must be given for the rest to come by itself."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from amnesis.contracts import Answer, ExampleMetric


class ExtractionStrength(ExampleMetric):
    """``1 − k/T``: after k of T label tokens the greedy continuation is all correct.

    k is the shortest such prefix, so an answer known from its first token on gives 1 and a wrong
    last token gives 0. One teacher-forced pass suffices: the continuation of a correct prefix is
    the text itself. Source: Carlini et al. 2021, arXiv 2012.07805, as used for unlearning by the
    G-effect paper, arXiv 2502.19301. The end-of-sequence token counts where it is a label.
    """

    formula: ClassVar[str] = "1 − k/T, k = shortest prefix with an all-correct continuation"
    source: ClassVar[str] = "Carlini et al. 2021, arXiv 2012.07805; arXiv 2502.19301"

    def value(self, answer: Answer) -> float:
        """Return the share of the answer that comes by itself, in [0, 1]."""
        wrong = np.flatnonzero(~answer.correct)
        prefix = int(wrong[-1]) + 1 if wrong.size else 0
        return (answer.correct.size - prefix) / answer.correct.size
