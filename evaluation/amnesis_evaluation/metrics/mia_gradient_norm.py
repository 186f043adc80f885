"""Membership by gradient: what a model was trained on no longer pulls at its weights."""

from __future__ import annotations

from typing import ClassVar

from amnesis.contracts import Answer, ExampleMetric
from amnesis.contracts.metric import Reading
from amnesis_evaluation.metrics.membership import MembershipInference


class GradientNorm(ExampleMetric):
    """``−‖∇θ mean_i ℓ_i‖₂`` over the trainable parameters: higher for members."""

    formula: ClassVar[str] = "−‖∇θ mean_i ℓ_i‖₂"
    source: ClassVar[str] = "Nasr et al. 2019, arXiv 1812.00910"
    reads: ClassVar[Reading] = "gradient"

    def value(self, answer: Answer) -> float:
        """Return the negative norm."""
        assert answer.gradient_norm is not None  # noqa: S101  # reads gradient
        return -answer.gradient_norm


class MiaGradientNorm(MembershipInference):
    """AUC by the example's gradient norm; one backward pass per example, so it costs most."""

    formula: ClassVar[str] = "AUC of −‖∇θ mean_i ℓ_i‖₂, forget against holdout"
    source: ClassVar[str] = "Nasr et al. 2019, arXiv 1812.00910"

    @property
    def score(self) -> ExampleMetric:
        """The negative norm."""
        return GradientNorm()
