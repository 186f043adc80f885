"""Combiners: how the forget gradient f and the retain gradient r become one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo

from amnesis.contracts.component import Component
from amnesis.distributed.shards import inner_product
from amnesis.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor

Gradients = Sequence["Tensor | None"]
# What a combiner keeps of one parameter from step to step: tensors by name, kept in checkpoints.
TensorState = Mapping[str, "Tensor"]
Coefficients = tuple["Tensor | float", "Tensor | float"]
Scope = Literal["tensor", "global"]
Pair = tuple["Tensor", "Tensor"]
Pairs = Mapping[str, Pair]  # f and r by parameter name
States = Mapping[str, TensorState]  # by parameter name, of the last step
NewStates = dict[str, TensorState]  # of this one
RETAIN = "retain"  # the name in a state of what stands in r's place
MOMENT = "moment"  # the name in a state of what a metric is made from
STEPS = "moment steps"  # and of how many steps went into it, a number


class Combiner(Component):
    """What makes one gradient, which the optimizer sees, of the two streams' gradients.

    A rule is an :class:`ElementwiseCombiner`, if it combines each element on its own, or a
    :class:`ProjectionCombiner`, if inner products of the gradients suffice. Both work on gradients
    that are sharded over ranks: inner products add up over shards, and elementwise rules need no
    communication. A :class:`CombinerWrapper` decides which elements a rule sees. A missing gradient
    (``None``) counts as zero.
    """

    @property
    def preconditions(self) -> bool:
        """Whether the result is divided by its scale already, as Adam divides a gradient.

        Such a result is for plain momentum: an optimizer that divides again undoes the metric.
        """
        return False

    def combine(self, forget_grads: Gradients, retain_grads: Gradients) -> list[Tensor | None]:
        """Return the combined gradient, tensor by tensor; the arguments are not changed.

        Raises:
            ContractError: the gradients differ in length or shape, or the rule breaks its contract.
        """
        return self.advance(forget_grads, retain_grads, [{}] * len(forget_grads))[0]

    def advance(
        self, forget_grads: Gradients, retain_grads: Gradients, state: Sequence[TensorState]
    ) -> tuple[list[Tensor | None], list[TensorState]]:
        """Return the combined gradient and the new state, given the last step's state.

        A state holds a mapping for each tensor; at the first step they are empty. Tensors have
        their places in the list for names.

        Raises:
            ContractError: the gradients differ in length or shape, or the rule breaks its contract.
        """
        if not len(forget_grads) == len(retain_grads) == len(state):
            raise ContractError(
                f"{self.label}: {len(forget_grads)} forget gradients but {len(retain_grads)} "
                f"retain gradients and {len(state)} states; give one of each (or None) per "
                f"parameter"
            )
        triples = zip(forget_grads, retain_grads, state, strict=True)
        pairs = {
            str(index): pair
            for index, (f, r, last) in enumerate(triples)
            if (pair := self._fill_missing(index, f, r, last)) is not None
        }
        combined, states = self._advance(pairs, {str(i): one for i, one in enumerate(state)})
        indices = [str(index) for index in range(len(forget_grads))]
        return [combined.get(i) for i in indices], [states.get(i, {}) for i in indices]

    @abstractmethod
    def _advance(self, pairs: Pairs, states: States) -> tuple[dict[str, Tensor], NewStates]: ...

    def _fill_missing(
        self, index: int, f: Tensor | None, r: Tensor | None, last: TensorState
    ) -> Pair | None:
        """Return f and r with zeros for a missing one; None where there is nothing to combine."""
        template = next((g for g in (f, r, last.get(RETAIN)) if g is not None), None)
        if template is None:
            return None
        f = template.new_zeros(template.shape) if f is None else f
        r = template.new_zeros(template.shape) if r is None else r
        if not f.shape == r.shape == template.shape:
            shapes = [tuple(g.shape) for g in (f, r)]
            raise ContractError(f"{self.label}: gradients {index} differ in shape: {shapes}")
        return f, r


class Rule(Combiner):
    """A combiner that computes the result itself, of gradients with weights."""

    gamma: float = Field(1.0, ge=0, description="γ, the weight of the forget gradient")
    alpha: float = Field(1.0, ge=0, description="α, the weight of the retain gradient")

    def remember(self, r: Tensor, last: Tensor | None) -> Tensor | None:
        """Return the tensor that is combined in place of r, such as a running mean of it.

        It is passed as ``last`` at the next step (None at the first) and is stored in checkpoints.
        Return None, as by default, where r itself is combined. Neither argument may be changed.
        """
        return None

    def _advance(self, pairs: Pairs, states: States) -> tuple[dict[str, Tensor], NewStates]:
        news: NewStates = {}
        seen: dict[str, Pair] = {}
        for name, (f, r) in pairs.items():
            memory = self.remember(r, states[name].get(RETAIN))
            news[name] = {} if memory is None else {RETAIN: memory}
            seen[name] = f, r if memory is None else memory
        return self._combine(seen, states, news) if seen else {}, news

    @abstractmethod
    def _combine(self, pairs: Pairs, states: States, news: NewStates) -> dict[str, Tensor]: ...


class ElementwiseCombiner(Rule):
    """A rule that combines each element of f with the same element of r, and no others."""

    @abstractmethod
    def combine_tensor(self, f: Tensor, r: Tensor) -> Tensor:
        """Return the combination of two tensors, in their shape and dtype.

        Both may be overwritten, and the result may be one of them.
        """

    def combine_named(
        self, name: str, f: Tensor, r: Tensor, state: TensorState
    ) -> tuple[Tensor, TensorState]:
        """Return the same of the parameter called ``name``, and its state for the next step.

        Override it for a rule that has a state, or that depends on the name. ``state`` is empty at
        the first step, and holds tensors of the parameter's shape.
        """
        return self.combine_tensor(f, r), {}

    def _combine(self, pairs: Pairs, states: States, news: NewStates) -> dict[str, Tensor]:
        combined = {}
        for name, (f, r) in pairs.items():
            combined[name], state = self.checked(name, f.clone(), r.clone(), states[name])
            news[name] = {**news[name], **state}
        return combined

    def checked(
        self, name: str, f: Tensor, r: Tensor, state: TensorState
    ) -> tuple[Tensor, TensorState]:
        """Return what :meth:`combine_named` returns, having checked its shape and dtype.

        Raises:
            ContractError: the result is not a tensor, or differs in shape or dtype.
        """
        shape, dtype = r.shape, r.dtype
        out, state = self.combine_named(name, f, r, state)
        if not hasattr(out, "shape"):
            raise ContractError(f"{self.label}: combine_tensor must give a tensor, not {out!r:.80}")
        if out.shape != shape or out.dtype != dtype:
            raise ContractError(
                f"{self.label}: combine_tensor must keep shape {tuple(shape)} and {dtype}, "
                f"but gave {tuple(out.shape)} and {out.dtype}"
            )
        return out, state


class ProjectionCombiner(Rule):
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

    def total_coefficients(self, gram: Tensor) -> Coefficients:
        """Return (a, b) for all tensors together, as numbers; this waits for the device."""
        a, b = self.coefficients(gram)
        return float(a), float(b)

    def _combine(self, pairs: Pairs, states: States, news: NewStates) -> dict[str, Tensor]:
        grams = {name: gram_matrix(f, r) for name, (f, r) in pairs.items()}
        coefficients = self._scoped_coefficients(grams)
        return {name: linear(f, r.clone(), coefficients[name]) for name, (f, r) in pairs.items()}

    def _scoped_coefficients(self, grams: Mapping[str, Tensor]) -> dict[str, Coefficients]:
        if self.scope == "tensor":
            return {name: self.coefficients(gram) for name, gram in grams.items()}
        return dict.fromkeys(grams, self.total_coefficients(added(list(grams.values()))))


class MetricCombiner(ProjectionCombiner):
    """A projection in a diagonal metric D that it remembers: ``D(a·f + b·r)``.

    The Gram matrix is ``Σ D·x·y`` over all elements. D is made from a moment: one tensor of a
    parameter's shape, in float32 at least, renewed by each step's r and kept in checkpoints. A step
    whose retain gradient is but rounding beside f leaves moments as they are, and follows f alone.
    """

    @property
    def preconditions(self) -> bool:
        """True: D is the scale of the result."""
        return True

    @abstractmethod
    def moment(self, r: Tensor, last: Tensor | None, steps: int) -> Tensor:
        """Return the moment of which r is the newest of ``steps`` retain gradients.

        ``last`` is None at the first; it may be overwritten and returned.
        """

    @abstractmethod
    def divisor(self, moment: Tensor, mean: Tensor) -> Tensor:
        """Return 1/D as a new tensor, infinite where D is 0.

        ``mean`` is that of the whole parameter's moment, of which a rank may hold a shard.
        """

    @abstractmethod
    def free_coefficient(self, gram: Tensor, elements: int) -> float | None:
        """Return what f is multiplied by where r is but rounding beside it, and None elsewhere.

        ``gram`` is of f and r without a metric; ``elements`` are all that train. This waits for
        the device, once a step.
        """

    def total_coefficients(self, gram: Tensor) -> Coefficients:
        """Return (a, b) for all tensors together, without waiting for the device once more."""
        return self.coefficients(gram)

    def renewed(self, r: Tensor, state: TensorState) -> TensorState:
        """Return a parameter's state with a moment that r went into; ``state`` may be overwritten.

        Both the moment and the number of steps, which stays on the CPU, are tensors.
        """
        import torch

        steps = int(state.get(STEPS, 0)) + 1
        return {
            MOMENT: self.moment(r, state.get(MOMENT), steps),
            STEPS: torch.tensor(steps),
        }

    def measured(self, f: Tensor, r: Tensor, moment: Tensor, mean: Tensor) -> tuple[Pair, Tensor]:
        """Return ``Df`` and ``Dr`` in the dtype of f and r, and the Gram matrix, ``(2, 2)``."""
        divisor = self.divisor(moment, mean)
        scaled = f / divisor, r / divisor
        return (scaled[0].to(f.dtype), scaled[1].to(r.dtype)), gram_matrix(f, r, scaled)

    def _combine(self, pairs: Pairs, states: States, news: NewStates) -> dict[str, Tensor]:
        plain = added([gram_matrix(f, r) for f, r in pairs.values()])
        free = self.free_coefficient(plain, sum(f.numel() for f, _ in pairs.values()))
        if free is not None:
            news.update({name: states[name] for name in pairs})
            return {name: f * free for name, (f, _) in pairs.items()}
        grams, scaled = {}, {}
        for name, (f, r) in pairs.items():
            last = {slot: tensor.clone() for slot, tensor in states[name].items()}
            news[name] = self.renewed(r, last)
            moment = news[name][MOMENT]
            scaled[name], grams[name] = self.measured(f, r, moment, moment.mean())
        coefficients = self._scoped_coefficients(grams)
        return {name: linear(f, r, coefficients[name]) for name, (f, r) in scaled.items()}


def _built(choice: Any, info: ValidationInfo) -> Any:
    """Return the combiner that a name or a mapping stands for, from the recipe's registry."""
    registry = (info.context or {}).get("registry")
    if isinstance(choice, Combiner) or choice is None or registry is None:
        return choice
    hyper = {"name": choice} if isinstance(choice, str) else dict(choice)
    if not isinstance(hyper.get("name"), str):
        raise ValueError("give a name, or a mapping with 'name' and hyper-parameters")
    return registry.create("combiner", hyper.pop("name"), **hyper)


class FirstGradients:
    """The gradients of a run's first step over all parameters, this rank's elements of each."""

    def __init__(
        self,
        pairs: Mapping[str, Pair],
        over_shards: Callable[[str, Tensor], Tensor] | None = None,
    ) -> None:
        """Take f and r by parameter name, and what sums a number over a parameter's shards."""
        self._pairs, self._over_shards = pairs, over_shards

    @property
    def forget(self) -> dict[str, Tensor]:
        """The forget gradient, by parameter name."""
        return {name: f for name, (f, _) in self._pairs.items()}

    @property
    def retain(self) -> dict[str, Tensor]:
        """The retain gradient, by parameter name."""
        return {name: r for name, (_, r) in self._pairs.items()}

    def sums(self, of: Callable[[Tensor, Tensor], Tensor]) -> dict[str, float]:
        """Return a sum over each parameter's elements; ``of`` takes this rank's f and r of it."""
        sums = {name: of(f, r).double() for name, (f, r) in self._pairs.items()}
        if self._over_shards is not None:
            sums = {name: self._over_shards(name, value) for name, value in sums.items()}
        return {name: float(value) for name, value in sums.items()}


class CombinerWrapper(Combiner):
    """A combiner that decides which elements of the two gradients another one sees.

    Elements that are masked are zeros in both gradients before they are combined, so projections
    are taken in what is left, and no element of the result moves that was masked.
    """

    combiner: Annotated[SerializeAsAny[Combiner] | None, BeforeValidator(_built)] = Field(
        None, description="the combiner that is wrapped; None: the two gradients are added"
    )

    reads_first_gradients: ClassVar[bool] = False

    @property
    def preconditions(self) -> bool:
        """Whether the combiner inside does."""
        return self.combiner is not None and self.combiner.preconditions

    def reaches(self, name: str) -> tuple[bool, bool]:
        """Whether the forget and the retain gradient reach the parameter called ``name``."""
        return True, True

    def masks(self, gradients: FirstGradients) -> Mapping[str, Tensor]:
        """Return what elements train, by parameter name: True where they do, in its shape.

        It is called once, with the first step's gradients, if ``reads_first_gradients``; the masks
        are kept for the whole run, in checkpoints too. A parameter without one trains whole.
        """
        return {}

    @property
    def mask_slot(self) -> str:
        """The name of the mask in a parameter's state."""
        return f"mask by {self.registered_name}"

    def _advance(self, pairs: Pairs, states: States) -> tuple[dict[str, Tensor], NewStates]:
        slot = self.mask_slot
        masks = {name: states[name][slot] for name in pairs if slot in states[name]}
        if self.reads_first_gradients and not masks:
            masks = dict(self.masks(FirstGradients(pairs)))
        seen = {name: self._masked(name, pair, masks.get(name)) for name, pair in pairs.items()}
        if self.combiner is None:
            combined = {name: f + r for name, (f, r) in seen.items()}
            news: NewStates = {}
        else:
            combined, news = self.combiner._advance(seen, states)
        for name, mask in masks.items():
            news[name] = {**news.get(name, {}), slot: mask}
        return combined, news

    def _masked(self, name: str, pair: Pair, mask: Tensor | None) -> Pair:
        f, r = (g if seen else g * 0 for g, seen in zip(pair, self.reaches(name), strict=True))
        return (f, r) if mask is None else (f * mask, r * mask)


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


def gram_matrix(f: Tensor, r: Tensor, scaled: Pair | None = None) -> Tensor:
    """Return the inner products ``[[⟨f,f⟩, ⟨f,r⟩], [⟨f,r⟩, ⟨r,r⟩]]`` in float64, ``(2, 2)``.

    In a metric D they are those of f and r with ``scaled``, which are Df and Dr.
    """
    import torch

    left, right = scaled or (f, r)
    ff, fr, rr = inner_product(f, left), inner_product(r, left), inner_product(r, right)
    return torch.stack([ff, fr, fr, rr]).view(2, 2)


def added(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of small tensors that may be on several devices, taken in their order."""
    import torch

    return torch.stack([tensor.to(tensors[0].device) for tensor in tensors]).cumsum(0)[-1]
