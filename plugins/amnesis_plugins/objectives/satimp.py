"""Saturation and importance: ascent on tokens that are neither forgotten nor certain."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from amnesis.contracts import LikelihoodTerm
from amnesis_plugins.objectives.probabilities import power, weighted

if TYPE_CHECKING:
    from torch import Tensor


class SatImp(LikelihoodTerm):
    """SatImp: ``mean_i sg(p_i^β1·(1 − p_i)^β2)·ℓ_i`` over label tokens.

    The first factor is small where a token is already forgotten (saturation), the second where it
    is all but certain, as the words of a phrase's middle are (importance). Source: Yang et al.
    2025, arXiv 2505.11953. No deviation; ``1 − p`` is ``−expm1(ℓ)``, exact near p = 1.
    """

    formula: ClassVar[str] = "mean_i sg(p_i^β1·(1 − p_i)^β2)·ℓ_i"
    source: ClassVar[str] = "Yang et al. 2025, arXiv 2505.11953"

    beta1: float = Field(5.0, ge=0, description="β1, the power of p; larger: forgotten sooner")
    beta2: float = Field(1.0, ge=0, description="β2, the power of 1 − p; 0 is WGA with β = β1")

    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return ``p_i^β1·(1 − p_i)^β2·ℓ_i``, the weight without gradient, ``(batch, tokens)``."""
        # Rounding can leave ℓ a little above 0, where 1 − p < 0 would make the weight NaN.
        doubt = (-logps.expm1()).clamp(min=0) ** self.beta2
        return weighted(power(logps, self.beta1) * doubt, logps)
