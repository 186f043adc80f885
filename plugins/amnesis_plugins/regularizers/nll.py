"""Negative log-likelihood: continued training on the retain set."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from amnesis.contracts import LikelihoodTerm

if TYPE_CHECKING:
    from torch import Tensor


class NLL(LikelihoodTerm):
    """NLL: ``−mean_i ℓ_i`` over label tokens; the risk R itself.

    Called GD in the literature, and GradDiff together with gradient ascent. Source: Maini et al.
    2024 (TOFU), arXiv 2401.06121. No deviation.
    """

    formula: ClassVar[str] = "−mean_i ℓ_i"
    source: ClassVar[str] = "Maini et al. 2024, arXiv 2401.06121"
    risk_multiple: ClassVar[float | None] = 1.0

    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return ``−ℓ_i``, ``(batch, tokens)``."""
        return -logps
