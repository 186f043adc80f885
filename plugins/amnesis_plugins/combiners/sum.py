"""The weighted sum: what any trainer with a single loss does."""

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
        """False: the coefficients are constants."""
        return False

    def coefficients(self, gram: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Return (γ, α), whatever the Gram matrix."""
        return self.gamma, self.alpha
