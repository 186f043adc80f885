"""Weighted gradient ascent: unlikely tokens are left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from amnesis.contracts import LikelihoodTerm
from amnesis_plugins.objectives.probabilities import power, weighted

if TYPE_CHECKING:
    from torch import Tensor


class WGA(LikelihoodTerm):
    """WGA: ``mean_i sg(p_i^β)·ℓ_i`` over label tokens.

    The weight undoes the inverse likelihood in ∇ℓ_i = ∇p_i/p_i, which otherwise lets tokens that
    are already forgotten dominate the update. Source: Wang et al. 2025, arXiv 2502.19301,
    Eq. 2 (β is α there; the name and the value 5 are those of the authors' code). No deviation.
    """

    formula: ClassVar[str] = "mean_i sg(p_i^β)·ℓ_i"
    source: ClassVar[str] = "Wang et al. 2025, arXiv 2502.19301"

    beta: float = Field(1.0, ge=0, description="β, the power of the token's probability; 0 is GA")

    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return ``p_i^β·ℓ_i``, the weight without gradient, ``(batch, tokens)``."""
        return weighted(power(logps, self.beta), logps)
