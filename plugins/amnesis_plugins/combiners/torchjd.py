"""Weightings of multi-objective optimization, from the optional library torchjd."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from amnesis.contracts import PluginError, ProjectionCombiner, RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from amnesis.contracts.combiner import Coefficients

Weighting = Literal[
    "mgda", "imtl_g", "upgrad", "dual_proj", "aligned_mtl", "cagrad", "fairgrad", "nash_mtl"
]
_OF_GRAM = {
    "mgda": "MGDAWeighting",
    "imtl_g": "IMTLGWeighting",
    "upgrad": "UPGradWeighting",
    "dual_proj": "DualProjWeighting",
    "aligned_mtl": "AlignedMTLWeighting",
    "cagrad": "CAGradWeighting",
    "fairgrad": "FairGradWeighting",
}


class TorchJD(ProjectionCombiner):
    """torchjd: ``w₁·γf + w₂·αr``, the weights w by one of torchjd's rules for two objectives.

    Two gradients' Gram matrix is all that these rules look at, so they shard as any projection
    does. Some stand still while one gradient is zero (MGDA), and so never leave θ° beside a
    retain term that is flat there (kl, representation). Source: the papers that torchjd (Quinton
    and Rey 2024, arXiv 2406.16232) names beside each weighting. Deviation: γ and α scale the two
    gradients first, and the one rule that would keep a state (Nash-MTL) starts afresh each step.
    """

    formula: ClassVar[str] = "w₁·γf + w₂·αr, w from the Gram matrix of γf and αr"
    source: ClassVar[str] = "Quinton and Rey 2024, arXiv 2406.16232, and torchjd's references"

    weighting: Weighting = Field("mgda", description="which rule")
    options: Mapping[str, Any] = Field({}, description="the rule's own parameters, e.g. {c: 0.4}")

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        self._rule()
        return self

    def coefficients(self, gram: Tensor) -> Coefficients:
        """Return (w₁γ, w₂α)."""
        import torch

        scale = torch.tensor([self.gamma, self.alpha], dtype=gram.dtype)
        scaled = gram.cpu() * scale * scale[:, None]  # the rules branch, so they wait anyway
        if not scaled.any():
            return self.gamma, self.alpha  # of nothing; some solvers know no answer
        if self.weighting == "nash_mtl":  # wants the gradients: two rows of the same Gram matrix
            scaled = _square_root(scaled)
        weights = self._rule()(scaled) * scale
        return float(weights[0]), float(weights[1])

    def _rule(self) -> Any:
        try:
            from torchjd import aggregation
        except ImportError:
            raise PluginError(
                "combiner 'torchjd' needs the library torchjd, which is not installed: "
                "pip install 'amnesis[torchjd]'"
            ) from None
        try:
            if self.weighting == "nash_mtl":
                return aggregation.NashMTL(2, **self.options).weighting
            return getattr(aggregation, _OF_GRAM[self.weighting])(**self.options)
        except ImportError as error:  # a rule's own solver
            raise PluginError(
                f"combiner 'torchjd', weighting {self.weighting!r}: {error}"
            ) from None
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"combiner 'torchjd', weighting {self.weighting!r}: options: {error}"
            ) from None


def _square_root(gram: Tensor) -> Tensor:
    """Return two rows whose Gram matrix is ``gram``."""
    import torch

    values, vectors = torch.linalg.eigh(gram)
    rows: Tensor = vectors * values.clamp(min=0).sqrt()
    return rows
