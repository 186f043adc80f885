"""Negative preference optimization: ascent that stops where the reference is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from amnesis.contracts import LikelihoodTerm, MeanOver
from amnesis_plugins.objectives.probabilities import log_ratio

if TYPE_CHECKING:
    from torch import Tensor


class NPO(LikelihoodTerm):
    """NPO: ``(2/β)·mean_b softplus(β·(Σ_i ℓ_i − Σ_i ℓ_i°))`` over examples.

    Its gradient is GA's, each example weighted by ``2·p^β/(p^β+p°^β)`` of the whole answer: an
    example that is already much less likely than under the reference is left alone.
    Source: Zhang et al. 2024, arXiv 2404.05868, Eq. 3. No deviation.
    """

    formula: ClassVar[str] = "(2/β)·mean_b softplus(β·(Σ_i ℓ_i − Σ_i ℓ_i°))"
    source: ClassVar[str] = "Zhang et al. 2024, arXiv 2404.05868"
    averaged_over: ClassVar[MeanOver] = "examples"
    reads_reference: ClassVar[bool] = True

    beta: float = Field(0.1, gt=0, description="β, how soon an example is left alone")

    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return each example's loss, ``(batch,)``."""
        from torch.nn.functional import softplus

        assert ref_logps is not None  # noqa: S101  # reads_reference
        # Differences are summed, not sums subtracted: at θ° every one of them is exactly 0.
        return 2 / self.beta * softplus(self.beta * log_ratio(logps, ref_logps).sum(-1))
