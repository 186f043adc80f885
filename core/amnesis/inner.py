"""Inner products of gradients, exact enough to be compared and differenced."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def inner_product(left: Tensor, right: Tensor) -> Tensor:
    """Give ⟨left, right⟩ over all elements as a float64 scalar on their device.

    Half precision is widened to float32 first, so that products are exact; the sum of a tensor is
    taken by the linear-algebra library, sums over tensors belong in float64.
    """
    left, right = left.reshape(-1), right.reshape(-1)
    if left.element_size() < 4:
        left, right = left.float(), right.float()
    return left.dot(right.to(left.dtype)).double()
