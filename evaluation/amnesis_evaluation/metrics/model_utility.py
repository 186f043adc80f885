"""Model utility: what a model can still do outside the forget set, in one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from amnesis.contracts import DerivedMetric, ExampleMetric, ExampleValues
from amnesis_evaluation.metrics.choice_probability import ChoiceProbability
from amnesis_evaluation.metrics.probability import Probability
from amnesis_evaluation.metrics.rouge_l import RougeL
from amnesis_evaluation.metrics.truth_ratio import Convention, TruthRatioUtility


class ModelUtility(DerivedMetric):
    """Harmonic mean of {probability, ROUGE-L, truth ratio} × {retain, real authors, world facts}.

    Probability is taken with options on real authors and world facts, the truth ratio as
    ``max(0, 1 − R)``. Each part is reported beside it. The value detects damage; it does not rank
    methods. Source: Maini et al. 2024, arXiv 2401.06121, section 2.2.1.
    """

    formula: ClassVar[str] = "harmonic mean of 9: {prob., ROUGE-L, max(0, 1−R)} × 3 sets"
    source: ClassVar[str] = "TOFU, Maini et al. 2024, arXiv 2401.06121"

    convention: Convention = Field("geometric", description="of the truth ratio")

    @property
    def key(self) -> str:
        """Its name, with the convention where it is not the default."""
        return super().key + ("_arithmetic" if self.convention == "arithmetic" else "")

    @property
    def parts(self) -> Mapping[str, tuple[ExampleMetric, ...]]:
        """The nine parts, three for each set."""
        truth = TruthRatioUtility(convention=self.convention)
        options = (ChoiceProbability(), RougeL(), truth)
        return {
            "retain": (Probability(), RougeL(), truth),
            "real_authors": options,
            "world_facts": options,
        }

    def value(self, own: ExampleValues, retrained: ExampleValues | None) -> float:
        """Return the harmonic mean of the parts' means, in [0, 1]."""
        return harmonic_mean([float(values.mean()) for values in own.values()])


def harmonic_mean(parts: Sequence[float]) -> float:
    """Return the harmonic mean of numbers of at least 0; 0 where one of them is 0."""
    from scipy.stats import hmean

    return float(hmean(parts)) if min(parts) > 0 else 0.0
