"""Membership by gradient: examples that a model was trained on have small gradients."""

from __future__ import annotations

from typing import ClassVar

from amnesis.contracts import Answer, ExampleMetric, Reading
from amnesis_evaluation.metrics.membership import MembershipInference


class GradientNorm(ExampleMetric):
    """``−‖∇θ mean_i ℓ_i‖₂`` over the trainable parameters: higher for members."""

    formula: ClassVar[str] = "−‖∇θ mean_i ℓ_i‖₂"
    source: ClassVar[str] = "Nasr et al. 2019, arXiv 1812.00910"
    reads: ClassVar[Reading] = "gradient"

    def value(self, answer: Answer) -> float:
        """Return the negative gradient norm, at most 0."""
        assert answer.gradient_norm is not None  # noqa: S101  # reads gradient
        return -answer.gradient_norm


class MiaGradientNorm(MembershipInference):
    """AUC by the example's gradient norm; costly, as it takes one backward pass per example."""

    formula: ClassVar[str] = "AUC of −‖∇θ mean_i ℓ_i‖₂, forget against holdout"
    source: ClassVar[str] = "Nasr et al. 2019, arXiv 1812.00910"

    @property
    def score(self) -> ExampleMetric:
        """The negative gradient norm."""
        return GradientNorm()
