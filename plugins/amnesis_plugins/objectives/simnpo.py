"""Simple negative preference optimization: no reference, and no preference for long answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from amnesis.contracts import LikelihoodTerm, MeanOver

if TYPE_CHECKING:
    from torch import Tensor


class SimNPO(LikelihoodTerm):
    """SimNPO: ``−(2/β)·mean_b log σ(β·(−(1/T)·Σ_i ℓ_i − δ))`` over examples.

    The length-normalised log-probability stands where NPO has the ratio to the reference, so no
    reference is needed, and which examples are left alone does not depend on the answer's length.
    As in the official code, δ is multiplied by β; a margin γ outside equals βδ. Source: Fan et al.
    2024, arXiv 2410.07163 (β = 2.5 for TOFU forget05, 4.5 for forget10). No deviation.
    """

    formula: ClassVar[str] = "−(2/β)·mean_b log σ(β·(−(1/T)·Σ_i ℓ_i − δ))"
    source: ClassVar[str] = "Fan et al. 2024, arXiv 2410.07163"
    averaged_over: ClassVar[MeanOver] = "examples"

    beta: float = Field(2.5, gt=0, description="β, how soon an example is left alone")
    delta: float = Field(0.0, description="δ, the mean log-probability's margin, in nats")

    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return each example's loss, ``(batch,)``."""
        from torch.nn.functional import softplus

        mean = logps.sum(-1) / mask.sum(-1).clamp(min=1)
        return 2 / self.beta * softplus(self.beta * (mean + self.delta))
