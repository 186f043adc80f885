"""Token-wise negative preference optimization: NPO's restraint, one token at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from amnesis.contracts import LikelihoodTerm
from amnesis_plugins.objectives.probabilities import log_ratio, weighted

if TYPE_CHECKING:
    from torch import Tensor


class TNPO(LikelihoodTerm):
    """TNPO: ``mean_i sg(w_i)·ℓ_i`` over label tokens, ``w_i = 2·p_i^β/(p_i^β + p_i°^β)``.

    A token that is already much less likely than under the reference is left alone. At θ° every
    weight is 1: gradient ascent. Source: Wang et al. 2025, arXiv 2502.19301 (β = 4 in the
    authors' code). Deviation: their code adds 1e-5 to the denominator, so that w → 0 where both
    probabilities are tiny; here ``w_i = 2·σ(β·(ℓ_i − ℓ_i°))``, which needs no epsilon.
    """

    formula: ClassVar[str] = "mean_i sg(2·p_i^β/(p_i^β + p_i°^β))·ℓ_i"
    source: ClassVar[str] = "Wang et al. 2025, arXiv 2502.19301"
    reads_reference: ClassVar[bool] = True

    beta: float = Field(1.0, gt=0, description="β, how soon a token is left alone")

    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return ``w_i·ℓ_i``, the weight without gradient, ``(batch, tokens)``."""
        assert ref_logps is not None  # noqa: S101  # reads_reference
        return weighted(2 * (self.beta * log_ratio(logps, ref_logps)).sigmoid(), logps)
