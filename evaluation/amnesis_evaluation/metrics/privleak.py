"""Privacy leakage: membership inference relative to that on a retrained model."""

from __future__ import annotations

from typing import ClassVar

from amnesis.contracts import DataError, ExampleMetric, ExampleValues
from amnesis_evaluation.metrics.membership import MembershipInference, auc
from amnesis_evaluation.metrics.mia_min_k import MinK


class PrivLeak(MembershipInference):
    """``100·((1−AUC_u) − (1−AUC_r))/(1−AUC_r)`` by min-k, u unlearned, r retrained.

    0 is ideal; the value is strongly negative where too little was unlearned, and positive where
    too much was. MUSE's AUC takes holdout examples for members, hence 1 − AUC here. Source: Shi et
    al. 2024, MUSE, arXiv 2407.06460, Eq. 2 with min-k 40 %. No deviation.
    """

    formula: ClassVar[str] = "100·((1−AUC_u) − (1−AUC_r))/(1−AUC_r), AUC by min-k 40 %"
    source: ClassVar[str] = "MUSE, Shi et al. 2024, arXiv 2407.06460"
    needs_retrained: ClassVar[bool] = True

    @property
    def score(self) -> ExampleMetric:
        """Min-k 40 %, read of both models."""
        return MinK()

    def value(self, own: ExampleValues, retrained: ExampleValues | None) -> float:
        """Return the leakage in per cent.

        Raises:
            DataError: the retrained model's AUC is 1, so that the denominator is 0.
        """
        assert retrained is not None  # noqa: S101  # needs_retrained
        unlearned_auc, retrained_auc = auc(*own.values()), auc(*retrained.values())
        if retrained_auc == 1:
            raise DataError(
                "the retrained model tells every forget from every holdout example (AUC 1); "
                "privleak is not defined"
            )
        return 100 * ((1 - unlearned_auc) - (1 - retrained_auc)) / (1 - retrained_auc)
