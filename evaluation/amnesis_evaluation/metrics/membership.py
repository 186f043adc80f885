"""Membership inference: can forgotten examples be told from examples never trained on?"""

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

    At 1 every forget example still shows; at 0.5 the two sets cannot be told apart; below 0.5 the
    forget examples were pushed so far that their absence shows.
    """

    @property
    @abstractmethod
    def score(self) -> ExampleMetric:
        """The metric that scores an example; higher for members."""

    @property
    def parts(self) -> Mapping[str, tuple[ExampleMetric, ...]]:
        """The score, on the forget set (members) and on the holdout set."""
        return {"forget": (self.score,), "holdout": (self.score,)}

    def value(self, own: ExampleValues, retrained: ExampleValues | None) -> float:
        """Return the AUC, in [0, 1]."""
        return auc(*own.values())


def auc(members: NDArray[float64], others: NDArray[float64]) -> float:
    """Return P(member's score > other's score), ties counted half, from ``(examples,)`` each.

    This is the Mann–Whitney statistic over the number of pairs.
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([members, others]))[: members.size]
    above = ranks.sum() - members.size * (members.size + 1) / 2
    return float(above / (members.size * others.size))
