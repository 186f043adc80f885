"""Membership by loss: members have a lower one."""

from __future__ import annotations

from typing import ClassVar

from amnesis.contracts import Answer, ExampleMetric
from amnesis_evaluation.metrics.membership import MembershipInference


class LogLikelihood(ExampleMetric):
    """``mean_i ℓ_i``, the negative of the example's loss."""

    formula: ClassVar[str] = "mean_i ℓ_i"
    source: ClassVar[str] = "Yeom et al. 2018, arXiv 1709.01604"

    def value(self, answer: Answer) -> float:
        """Return the mean log-probability, at most 0."""
        return float(answer.logps.mean())


class MiaLoss(MembershipInference):
    """AUC by ``mean_i ℓ_i``. Source: Yeom et al. 2018, arXiv 1709.01604. No deviation."""

    formula: ClassVar[str] = "AUC of mean_i ℓ_i, forget against holdout"
    source: ClassVar[str] = "Yeom et al. 2018, arXiv 1709.01604"

    @property
    def score(self) -> ExampleMetric:
        """The mean log-likelihood per token."""
        return LogLikelihood()
