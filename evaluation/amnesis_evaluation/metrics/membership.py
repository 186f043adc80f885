"""Membership inference: can forgotten examples be told from examples that were never seen?"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from amnesis.contracts import DerivedMetric, ExampleMetric, ExampleValues

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray


class MembershipInference(DerivedMetric):
    """AUC of forget (members) against holdout by a score that is higher for members.

    1: every forget example still shows; 0.5: none can be told apart; below, they were pushed so
    far that their absence shows.
    """

    @property
    @abstractmethod
    def score(self) -> ExampleMetric:
        """The example's score, higher for members."""

    @property
    def parts(self) -> Mapping[str, tuple[ExampleMetric, ...]]:
        """The score of forget and holdout examples."""
        return {"forget": (self.score,), "holdout": (self.score,)}

    def value(self, own: ExampleValues, retrained: ExampleValues | None) -> float:
        """Return the AUC, in [0, 1]."""
        return auc(*own.values())


def auc(members: NDArray[float64], others: NDArray[float64]) -> float:
    """Return P(member's score > other's score), ties counted half: the Mann-Whitney statistic."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([members, others]))[: members.size]
    above = ranks.sum() - members.size * (members.size + 1) / 2
    return float(above / (members.size * others.size))
