"""Membership by loss over compressed length, which discounts simple text."""

from __future__ import annotations

import zlib
from typing import ClassVar

from amnesis.contracts import Answer, ExampleMetric
from amnesis_evaluation.metrics.membership import MembershipInference


class ZlibRatio(ExampleMetric):
    """``mean_i ℓ_i / |zlib(answer)|``, the length in bytes."""

    formula: ClassVar[str] = "mean_i ℓ_i / |zlib(answer)|"
    source: ClassVar[str] = "Carlini et al. 2021, arXiv 2012.07805"

    def value(self, answer: Answer) -> float:
        """Return the ratio in nats per byte, at most 0."""
        return float(answer.logps.mean()) / len(zlib.compress(answer.text.encode()))


class MiaZlib(MembershipInference):
    """AUC by log-likelihood over zlib length. Source: Carlini et al. 2021, arXiv 2012.07805.

    The log-likelihood is the mean over tokens, as there (log-perplexity). No deviation.
    """

    formula: ClassVar[str] = "AUC of mean_i ℓ_i / |zlib(answer)|, forget against holdout"
    source: ClassVar[str] = "Carlini et al. 2021, arXiv 2012.07805"

    @property
    def score(self) -> ExampleMetric:
        """The log-likelihood over zlib length."""
        return ZlibRatio()
