"""Combiners: one gradient out of the forget gradient f and the retain gradient r."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from amnesis.contracts.component import Component
from amnesis.errors import ContractError
from amnesis.inner import inner_product

if TYPE_CHECKING:
    from torch import Tensor

Scope = Literal["tensor", "global"]


class Combiner(Component):
    """How the two streams' gradients become the one that the optimizer sees.

    A gradient that is missing (``None``) is a zero. Which of the two forms below a method takes
    says how it shards: inner products add up over shards, elementwise rules need no exchange.
    """

    gamma: float = Field(1.0, ge=0, description="γ, the weight of the forget gradient")
    alpha: float = Field(1.0, ge=0, description="α, the weight of the retain gradient")

    def combine(
        self, forget_grads: Sequence[Tensor | None], retain_grads: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """Combine two gradients, given tensor by tensor; neither is changed.

        Raises:
            ContractError: the two differ in length or shape, or the result has another shape.
        """
        if len(forget_grads) != len(retain_grads):
            raise ContractError(
                f"{self.label}: {len(forget_grads)} forget gradients but {len(retain_grads)} "
                f"retain gradients; give one of each (or None) per parameter"
            )
        pairs = [
            self._completed(index, f, r)
            for index, (f, r) in enumerate(zip(forget_grads, retain_grads, strict=True))
        ]
        given = [pair for pair in pairs if pair is not None]
        combined = iter(self._combine(given))
        return [None if pair is None else next(combined) for pair in pairs]

    @abstractmethod
    def _combine(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]: ...

    def _completed(
        self, index: int, f: Tensor | None, r: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        if f is None and r is None:
            return None
        f = r.new_zeros(r.shape) if f is None and r is not None else f
        r = f.new_zeros(f.shape) if r is None and f is not None else r
        if f is None or r is None or f.shape != r.shape:
            found = [None if g is None else tuple(g.shape) for g in (f, r)]
            raise ContractError(f"{self.label}: gradients {index} differ in shape: {found}")
        return f, r


class ElementwiseCombiner(Combiner):
    """A rule that looks at one element of f and of r at a time."""

    @abstractmethod
    def combine_tensor(self, f: Tensor, r: Tensor) -> Tensor:
        """Combine two tensors of one shape; the memory of both may be reused for the result."""

    def _combine(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        return [self.checked_tensor(f.clone(), r.clone()) for f, r in pairs]

    def checked_tensor(self, f: Tensor, r: Tensor) -> Tensor:
        """Give :meth:`combine_tensor`, holding it to shape and dtype."""
        shape, dtype = r.shape, r.dtype
        out = self.combine_tensor(f, r)
        if out.shape != shape or out.dtype != dtype:
            raise ContractError(
                f"{self.label}: combine_tensor must keep shape {tuple(shape)} and {dtype}, "
                f"but gave {tuple(out.shape)} and {out.dtype}"
            )
        return out


class ProjectionCombiner(Combiner):
    """A rule ``a·f + b·r`` whose coefficients follow from inner products alone."""

    scope: Scope = Field(
        "global", description="one pair of coefficients per parameter tensor, or for all at once"
    )

    @property
    def reads_gram(self) -> bool:
        """Whether the coefficients depend on the gradients; a constant rule says no."""
        return True

    @abstractmethod
    def coefficients(self, gram: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Give (a, b) from the Gram matrix ``[[⟨f,f⟩, ⟨f,r⟩], [⟨f,r⟩, ⟨r,r⟩]]`` in float64."""

    def combine_pair(self, f: Tensor, r: Tensor, gram: Tensor) -> Tensor:
        """Give ``a·f + b·r`` in the memory of r."""
        a, b = self.coefficients(gram)
        return r.mul_(b).add_(f * a if hasattr(a, "dim") else f, alpha=1 if hasattr(a, "dim") else a)

    def _combine(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        grams = [gram_matrix(f, r) for f, r in pairs]
        if self.scope == "global" and grams:
            total = grams[0].clone()
            for gram in grams[1:]:
                total += gram.to(total.device)
            grams = [total.to(f.device) for f, _ in pairs]
        return [
            self.combine_pair(f, r.clone(), gram) for (f, r), gram in zip(pairs, grams, strict=True)
        ]


def gram_matrix(f: Tensor, r: Tensor) -> Tensor:
    """Give the 2 × 2 matrix of inner products of two tensors, in float64, on their device."""
    import torch

    ff, fr, rr = inner_product(f, f), inner_product(f, r), inner_product(r, r)
    return torch.stack([ff, fr, fr, rr]).view(2, 2)
