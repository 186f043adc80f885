"""The weighted sum: what every trainer does that sees one loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from amnesis.contracts import ProjectionCombiner

if TYPE_CHECKING:
    from torch import Tensor


class Sum(ProjectionCombiner):
    """Sum: ``γf + αr``, the gradient of ``γ·forget + α·retain``."""

    formula: ClassVar[str] = "γf + αr"
    source: ClassVar[str] = "baseline"

    @property
    def reads_gram(self) -> bool:
        """No: the coefficients are constants."""
        return False

    def coefficients(self, gram: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Return (γ, α)."""
        return self.gamma, self.alpha
