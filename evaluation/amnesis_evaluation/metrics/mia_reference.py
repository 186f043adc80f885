"""Membership by loss relative to a retrained model: easy text counts for nothing."""

from __future__ import annotations

from typing import ClassVar

from amnesis.contracts import DataError, ExampleMetric, ExampleValues
from amnesis_evaluation.metrics.membership import MembershipInference, auc
from amnesis_evaluation.metrics.mia_loss import LogLikelihood


class MiaReference(MembershipInference):
    """AUC by ``mean ℓ − mean ℓ^ref``, the reference being the retrained model.

    Source: Carlini et al. 2021, arXiv 2012.07805 (reference-calibrated loss). Deviation: the
    calibrating model is the one retrained without the forget set, not a smaller one.
    """

    formula: ClassVar[str] = "AUC of mean_i ℓ_i − mean_i ℓ_i^retrained"
    source: ClassVar[str] = "Carlini et al. 2021, arXiv 2012.07805"
    needs_retrained: ClassVar[bool] = True

    @property
    def score(self) -> ExampleMetric:
        """The mean log-likelihood per token, read of both models."""
        return LogLikelihood()

    def value(self, own: ExampleValues, retrained: ExampleValues | None) -> float:
        """Return the AUC, in [0, 1].

        Raises:
            DataError: the retrained model was evaluated on other examples.
        """
        assert retrained is not None  # noqa: S101  # needs_retrained
        for pair, values in own.items():
            if values.size != retrained[pair].size:
                raise DataError(
                    f"the retrained model was evaluated on {retrained[pair].size} examples of "
                    f"{pair[0]!r}, this one on {values.size}; evaluate both on the same"
                )
        return auc(*(values - retrained[pair] for pair, values in own.items()))
