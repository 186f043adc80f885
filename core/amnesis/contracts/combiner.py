"""Combiners: how the forget gradient f and the retain gradient r become one."""

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
    """A rule that makes one gradient, which the optimizer sees, of the two streams' gradients.

    Derive from :class:`ProjectionCombiner` where inner products of the gradients suffice, and from
    :class:`ElementwiseCombiner` where each element is combined on its own. Both work on gradients
    that are sharded over ranks: inner products add up over shards, and elementwise rules need no
    communication. A missing gradient (``None``) counts as zero.
    """

    gamma: float = Field(1.0, ge=0, description="γ, the weight of the forget gradient")
    alpha: float = Field(1.0, ge=0, description="α, the weight of the retain gradient")

    def remember(self, r: Tensor, last: Tensor | None) -> Tensor | None:
        """Return the tensor that is combined in place of r, such as a running mean of it.

        It is passed as ``last`` at the next step (None at the first) and is stored in checkpoints:
        one tensor per parameter, which is all the state that a combiner has. Return None, as by
        default, for a combiner without state. Neither argument may be changed.
        """
        return None

    def combine(self, forget_grads: Gradients, retain_grads: Gradients) -> list[Tensor | None]:
        """Return the combined gradient, tensor by tensor; the arguments are not changed.

        Raises:
            ContractError: the gradients differ in length or shape, or the rule breaks its contract.
        """
        return self.advance(forget_grads, retain_grads, [None] * len(forget_grads))[0]

    def advance(
        self, forget_grads: Gradients, retain_grads: Gradients, state: Gradients
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Return the combined gradient and the new state, given the last step's state.

        A state holds what :meth:`remember` returned for each tensor; at the first step it is all
        None.

        Raises:
            ContractError: the gradients differ in length or shape, or the rule breaks its contract.
        """
        if not len(forget_grads) == len(retain_grads) == len(state):
            raise ContractError(
                f"{self.label}: {len(forget_grads)} forget gradients but {len(retain_grads)} "
                f"retain gradients and {len(state)} states; give one of each (or None) per "
                f"parameter"
            )
        pairs: list[tuple[Tensor, Tensor] | None] = []
        states: list[Tensor | None] = []
        triples = zip(forget_grads, retain_grads, state, strict=True)
        for index, (f, r, last) in enumerate(triples):
            pair = self._fill_missing(index, f, r, last)
            states.append(None if pair is None else self.remember(pair[1], last))
            pairs.append(pair if pair is None or states[-1] is None else (pair[0], states[-1]))
        combined = iter(self._combine([pair for pair in pairs if pair is not None]))
        return [None if pair is None else next(combined) for pair in pairs], states

    @abstractmethod
    def _combine(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]: ...

    def _fill_missing(
        self, index: int, f: Tensor | None, r: Tensor | None, last: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """Return f and r with zeros for a missing one; None where there is nothing to combine."""
        template = next((g for g in (f, r, last) if g is not None), None)
        if template is None:
            return None
        f = template.new_zeros(template.shape) if f is None else f
        r = template.new_zeros(template.shape) if r is None else r
        if not f.shape == r.shape == template.shape:
            shapes = [tuple(g.shape) for g in (f, r)]
            raise ContractError(f"{self.label}: gradients {index} differ in shape: {shapes}")
        return f, r


class ElementwiseCombiner(Combiner):
    """A rule that combines each element of f with the same element of r, and no others."""

    @abstractmethod
    def combine_tensor(self, f: Tensor, r: Tensor) -> Tensor:
        """Return the combination of two tensors, in their shape and dtype.

        Both may be overwritten, and the result may be one of them.
        """

    def _combine(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        return [self.checked_tensor(f.clone(), r.clone()) for f, r in pairs]

    def checked_tensor(self, f: Tensor, r: Tensor) -> Tensor:
        """Return what :meth:`combine_tensor` returns, having checked its shape and dtype.

        Raises:
            ContractError: the result is not a tensor, or differs in shape or dtype.
        """
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
    """A rule ``a·f + b·r`` whose coefficients depend on inner products of f and r alone.

    ``scope`` decides over what the inner products are taken: each parameter tensor, or all of them.
    """

    scope: Scope = Field(
        "global", description="one pair of coefficients per parameter tensor, or for all at once"
    )

    @property
    def reads_gram(self) -> bool:
        """Whether the coefficients depend on the gradients; False spares the inner products."""
        return True

    @abstractmethod
    def coefficients(self, gram: Tensor) -> Coefficients:
        """Return (a, b), given the Gram matrix ``[[⟨f,f⟩, ⟨f,r⟩], [⟨f,r⟩, ⟨r,r⟩]]`` in float64.

        Tensors on the matrix's device, rather than numbers, avoid waiting for the device.
        """

    def total_coefficients(self, gram: Tensor) -> tuple[float, float]:
        """Return (a, b) for all tensors together, as numbers; this waits for the device."""
        a, b = self.coefficients(gram)
        return float(a), float(b)

    def _combine(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        if not pairs:
            return []
        grams = [gram_matrix(f, r) for f, r in pairs]
        coefficients: list[Coefficients]
        if self.scope == "tensor":
            coefficients = [self.coefficients(gram) for gram in grams]
        else:
            total = grams[0]
            for gram in grams[1:]:
                total = total + gram.to(total.device)
            coefficients = [self.total_coefficients(total)] * len(pairs)
        return [linear(f, r.clone(), c) for (f, r), c in zip(pairs, coefficients, strict=True)]


def linear(f: Tensor, r: Tensor, coefficients: Coefficients) -> Tensor:
    """Return ``a·f + b·r``, written over r, without waiting for the device."""
    a, b = coefficients
    if r.element_size() < 4:
        # Coefficients rounded to half precision would leave that much of a conflict in the result.
        return r.copy_(f.float().mul_(a).add_(r.float().mul_(b)))
    r.mul_(b)
    if isinstance(a, float | int):
        return r.add_(f, alpha=a)
    return r.addcmul_(f, a.to(r.dtype))  # unlike r + a * f, without a copy of f


def gram_matrix(f: Tensor, r: Tensor) -> Tensor:
    """Return the inner products ``[[⟨f,f⟩, ⟨f,r⟩], [⟨f,r⟩, ⟨r,r⟩]]`` in float64, ``(2, 2)``."""
    import torch

    ff, fr, rr = inner_product(f, f), inner_product(f, r), inner_product(r, r)
    return torch.stack([ff, fr, fr, rr]).view(2, 2)
