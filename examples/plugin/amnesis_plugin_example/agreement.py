"""Agreement: move an element only where forgetting and retaining pull the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from amnesis.contracts import ElementwiseCombiner

if TYPE_CHECKING:
    from torch import Tensor


class Agreement(ElementwiseCombiner):
    """Agr-Sum: ``γf + αr`` where the signs of f and r agree, else 0.

    Source: Mansilla et al. 2021, arXiv 2108.01621, there for gradients of several domains.
    Deviation: a zero agrees with either sign, or rows of the embedding that the forget batch
    lacks would never be retained.
    """

    formula: ClassVar[str] = "γf + αr where f⊙r ≥ 0, else 0"
    source: ClassVar[str] = "Mansilla et al. 2021, arXiv 2108.01621"

    def combine_tensor(self, f: Tensor, r: Tensor) -> Tensor:
        """Combine in the memory of r. Signs are multiplied, not values: ``f*r`` underflows."""
        conflict = f.sign() * r.sign() < 0
        return r.mul_(self.alpha).add_(f, alpha=self.gamma).masked_fill_(conflict, 0)
