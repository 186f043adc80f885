"""Gradient ascent: raise the risk on what must go."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from amnesis.contracts import LikelihoodTerm

if TYPE_CHECKING:
    from torch import Tensor


class GradientAscent(LikelihoodTerm):
    """GA: ``mean_i ℓ_i`` over label tokens.

    Unbounded below: it goes on after everything is forgotten, and takes the retain set with it.
    Source: Jang et al. 2023, arXiv 2210.01504; the baseline of the G-effect paper,
    arXiv 2502.19301. No deviation.
    """

    formula: ClassVar[str] = "mean_i ℓ_i"
    source: ClassVar[str] = "Jang et al. 2023, arXiv 2210.01504"
    risk_multiple: ClassVar[float | None] = -1.0

    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return ``ℓ_i``, ``(batch, tokens)``."""
        return logps
