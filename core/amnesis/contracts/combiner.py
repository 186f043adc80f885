"""Combiners: one gradient out of the forget gradient f and the retain gradient r."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from amnesis.contracts.component import Component
from amnesis.distributed.shards import inner_product
from amnesis.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor

Gradients = Sequence["Tensor | None"]
Coefficients = tuple["Tensor | float", "Tensor | float"]
Scope = Literal["tensor", "global"]


class Combiner(Component):
    """How the two streams' gradients become the one that the optimizer sees.

    A gradient that is missing (``None``) is a zero. Which of the two forms below a method takes
    says how it shards: inner products add up over shards, elementwise rules need no exchange.
    """

    gamma: float = Field(1.0, ge=0, description="γ, the weight of the forget gradient")
    alpha: float = Field(1.0, ge=0, description="α, the weight of the retain gradient")

    def remember(self, r: Tensor, last: Tensor | None) -> Tensor | None:
        """Return what stands in r's place from here on; it is carried to the next step as ``last``.

        This is the whole of a combiner's state: one tensor per parameter, passed in and returned,
        kept and checkpointed by whoever runs the steps. ``None`` (the default): there is none,
        and r stands for itself. Neither argument may be changed.
        """
        return None

    def combine(self, forget_grads: Gradients, retain_grads: Gradients) -> list[Tensor | None]:
        """Combine two gradients, given tensor by tensor; neither is changed.

        Raises:
            ContractError: the two differ in length or shape, or the result has another shape.
        """
        return self.advance(forget_grads, retain_grads, [None] * len(forget_grads))[0]

    def advance(
        self, forget_grads: Gradients, retain_grads: Gradients, state: Gradients
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Combine as :meth:`combine` does, one step after ``state``; give the new state too."""
        if not len(forget_grads) == len(retain_grads) == len(state):
            raise ContractError(
                f"{self.label}: {len(forget_grads)} forget gradients but {len(retain_grads)} "
                f"retain gradients and {len(state)} states; give one of each (or None) per "
                f"parameter"
            )
        pairs: list[tuple[Tensor, Tensor] | None] = []
        states: list[Tensor | None] = []
        given = zip(forget_grads, retain_grads, state, strict=True)
        for index, (f, r, last) in enumerate(given):
            pair = self._completed(index, f, r, last)
            states.append(None if pair is None else self.remember(pair[1], last))
            pairs.append(pair if pair is None or states[-1] is None else (pair[0], states[-1]))
        combined = iter(self._combine([pair for pair in pairs if pair is not None]))
        return [None if pair is None else next(combined) for pair in pairs], states

    @abstractmethod
    def _combine(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]: ...

    def _completed(
        self, index: int, f: Tensor | None, r: Tensor | None, last: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        some = next((g for g in (f, r, last) if g is not None), None)
        if some is None:
            return None
        f = some.new_zeros(some.shape) if f is None else f
        r = some.new_zeros(some.shape) if r is None else r
        if not f.shape == r.shape == some.shape:
            found = [tuple(g.shape) for g in (f, r)]
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
        """Return :meth:`combine_tensor`, holding it to shape and dtype."""
        shape, dtype = r.shape, r.dtype
        out = self.combine_tensor(f, r)
        if not hasattr(out, "shape"):
            raise ContractError(f"{self.label}: combine_tensor must give a tensor, not {out!r:.80}")
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
    def coefficients(self, gram: Tensor) -> Coefficients:
        """Return (a, b) from the Gram matrix ``[[⟨f,f⟩, ⟨f,r⟩], [⟨f,r⟩, ⟨r,r⟩]]`` in float64."""

    def total_coefficients(self, gram: Tensor) -> tuple[float, float]:
        """Return (a, b) for all tensors at once, as numbers: the step's only synchronisation."""
        a, b = self.coefficients(gram)
        return float(a), float(b)

    def _combine(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        if not pairs:
            return []
        grams = [gram_matrix(f, r) for f, r in pairs]
        if self.scope == "tensor":
            chosen = [self.coefficients(gram) for gram in grams]
        else:
            total = grams[0]
            for gram in grams[1:]:
                total = total + gram.to(total.device)
            chosen = [self.total_coefficients(total)] * len(pairs)
        return [linear(f, r.clone(), c) for (f, r), c in zip(pairs, chosen, strict=True)]


def linear(f: Tensor, r: Tensor, coefficients: Coefficients) -> Tensor:
    """Return ``a·f + b·r`` in the memory of r, without waiting for the device."""
    a, b = coefficients
    if r.element_size() < 4:
        # A coefficient rounded to half precision would leave as much of a conflict behind.
        return r.copy_(f.float().mul_(a).add_(r.float().mul_(b)))
    r.mul_(b)
    if isinstance(a, float | int):
        return r.add_(f, alpha=a)
    return r.addcmul_(f, a.to(r.dtype))  # no copy of f is made


def gram_matrix(f: Tensor, r: Tensor) -> Tensor:
    """Return the 2 × 2 matrix of inner products of two tensors, in float64, on their device."""
    import torch

    ff, fr, rr = inner_product(f, f), inner_product(f, r), inner_product(r, r)
    return torch.stack([ff, fr, fr, rr]).view(2, 2)
