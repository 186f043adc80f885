"""Exact memorization: the share of an answer's tokens that are the model's first choice."""

from __future__ import annotations

from typing import ClassVar

from amnesis.contracts import Answer, ExampleMetric


class ExactMemorization(ExampleMetric):
    """``mean_i [argmax = y_i]`` over label tokens, teacher-forced.

    Source: Tirumala et al. 2022, arXiv 2205.10770. No deviation.
    """

    formula: ClassVar[str] = "mean_i [argmax_v p(v | x, y_<i) = y_i]"
    source: ClassVar[str] = "Tirumala et al. 2022, arXiv 2205.10770"

    def value(self, answer: Answer) -> float:
        """Return the share, in [0, 1]."""
        return float(answer.correct.mean())
