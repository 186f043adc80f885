"""A combiner at work on a run's parameters: its masks, its memory, each step's coefficients."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING

import torch

from amnesis.contracts.combiner import (
    MOMENT,
    RETAIN,
    Combiner,
    CombinerWrapper,
    ElementwiseCombiner,
    FirstGradients,
    MetricCombiner,
    Pair,
    ProjectionCombiner,
    Rule,
    added,
    gram_matrix,
    linear,
)
from amnesis.distributed.shards import is_sharded, laid_as, local, over_all_shards, over_shards
from amnesis.errors import ContractError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from amnesis.contracts.combiner import Coefficients, TensorState

_OF = " of "  # between the names of a state's tensor and its parameter; neither contains it


class Composition:
    """Makes one gradient of two, parameter by parameter, as a combiner says.

    What a rule needs of all parameters together is taken in :meth:`prepare`; where it needs nothing
    of the kind (:attr:`reads_all`), parameters may come one by one. A gradient is this rank's
    elements of it; both may be overwritten.
    """

    def __init__(
        self, names: Mapping[Parameter, str], combiner: Combiner | None, *, may_overflow: bool
    ) -> None:
        """Combine gradients of those parameters; without a ``combiner`` they are added.

        ``may_overflow`` says that a loss scaler skips a step whose gradients are not finite, which
        must not stay in memory.
        """
        self._names, self._may_overflow = names, may_overflow
        self._wrappers, self._rule = _unwrapped(combiner)
        self._memory: dict[Parameter, TensorState] = {}
        self._coefficients: dict[Parameter, Coefficients] = {}  # of this step

    @property
    def adds(self) -> bool:
        """Whether f + r is all that is asked for, so that both can be collected in one."""
        rule = self._rule
        if self._wrappers or rule is None:
            return not self._wrappers
        return (
            isinstance(rule, ProjectionCombiner)
            and not rule.reads_gram
            and type(rule).remember is Rule.remember
            and rule.coefficients(torch.zeros(2, 2)) == (1, 1)
        )

    @property
    def reads_all(self) -> bool:
        """Whether no parameter can be combined before the gradients of all are there."""
        return self._reads_total or bool(self._wrappers_without_masks())

    @property
    def _reads_total(self) -> bool:
        rule = self._rule
        if isinstance(rule, MetricCombiner):
            return True
        return isinstance(rule, ProjectionCombiner) and rule.reads_gram and rule.scope == "global"

    def remembers_retain(self, p: Parameter) -> bool:
        """Whether something stands in r's place for a parameter that has no r."""
        return RETAIN in self._memory.get(p, {})

    def prepare(
        self, pairs: MutableMapping[Parameter, Pair], grams: Mapping[Parameter, Tensor]
    ) -> None:
        """Take what the rule needs of the gradients of all parameters.

        What is in ``pairs`` afterwards goes to :meth:`combined`. ``grams`` are the Gram matrices
        that are known already.
        """
        self._find_masks(pairs)
        rule = self._rule
        if not isinstance(rule, ProjectionCombiner) or not rule.reads_gram or not pairs:
            return
        if not (self._reads_total or any(map(is_sharded, pairs))):
            return
        grams = dict(grams)
        for p, (f, r) in pairs.items():
            pairs[p] = self._seen(p, f, r)
            if pairs[p][1] is not r or self._wrappers:
                grams.pop(p, None)
        missing = {p: gram_matrix(*pair) for p, pair in pairs.items() if p not in grams}
        grams |= over_all_shards(missing)
        self._coefficients = self._coefficients_of(rule, pairs, grams)

    def combined(self, p: Parameter, f: Tensor, r: Tensor, gram: Tensor | None = None) -> Tensor:
        """Return the combination of a parameter's two gradients.

        ``gram`` is their Gram matrix, where it is known.
        """
        rule = self._rule
        if p in self._coefficients:
            return linear(f, r, self._coefficients.pop(p))
        f, seen = self._seen(p, f, r)
        if seen is not r or self._wrappers:
            r, gram = seen, None
        if isinstance(rule, ElementwiseCombiner):
            out, state = rule.checked(self._names[p], f, r, self._memory.get(p, {}))
            if all(self._is_kept(tensor) for tensor in state.values()):
                self._update(p, state)
            return out
        if not isinstance(rule, ProjectionCombiner):
            return linear(f, r, (1.0, 1.0))
        if not rule.reads_gram:
            gram = f.new_zeros(2, 2)
        return linear(f, r, rule.coefficients(gram_matrix(f, r) if gram is None else gram))

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is remembered, each tensor by its own name and its parameter's.

        Where a parameter is sharded its tensors are laid over ranks as it is.
        """
        return {
            f"{slot}{_OF}{self._names[p]}": laid_as(tensor, p) if _is_of(p, tensor) else tensor
            for p, state in self._memory.items()
            for slot, tensor in state.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned."""
        parameters = {name: p for p, name in self._names.items()}
        self._memory = {}
        for key, tensor in state.items():
            slot, _, name = key.partition(_OF)
            p, tensor = parameters[name], local(tensor)
            self._update(p, {slot: tensor.to(p.device) if _is_of(p, tensor) else tensor.cpu()})

    def _coefficients_of(
        self,
        rule: ProjectionCombiner,
        pairs: MutableMapping[Parameter, Pair],
        grams: Mapping[Parameter, Tensor],
    ) -> dict[Parameter, Coefficients]:
        if isinstance(rule, MetricCombiner):
            total = added([grams[p] for p in pairs])
            if self._may_overflow and not total.isfinite().all():
                return dict.fromkeys(pairs, (1.0, 1.0))  # the scaler will see it too
            free = rule.free_coefficient(total, sum(p.numel() for p in pairs))
            if free is not None:
                return dict.fromkeys(pairs, (free, 0.0))
            grams = self._measure(rule, pairs)
        if rule.scope == "tensor":
            return {p: rule.coefficients(grams[p]) for p in pairs}
        total = added([grams[p] for p in pairs])
        waits = not isinstance(rule, MetricCombiner)  # it has waited for the device already
        return dict.fromkeys(
            pairs, (rule.total_coefficients if waits else rule.coefficients)(total)
        )

    def _measure(
        self, rule: MetricCombiner, pairs: MutableMapping[Parameter, Pair]
    ) -> dict[Parameter, Tensor]:
        """Renew the metric, put all gradients into it, and return their Gram matrices there."""
        for p, (_, r) in pairs.items():
            self._update(p, rule.renewed(r, self._memory.get(p, {})))
        sums = over_all_shards({p: self._memory[p][MOMENT].sum() for p in pairs})
        grams: dict[Parameter, Tensor] = {}
        for p, (f, r) in pairs.items():
            moment = self._memory[p][MOMENT]
            pairs[p], grams[p] = rule.measured(f, r, moment, sums[p] / p.numel())
        return over_all_shards(grams)

    def _seen(self, p: Parameter, f: Tensor, r: Tensor) -> Pair:
        """Return what the rule sees, once a step: masked gradients, and r's memory in its place."""
        for wrapper in self._wrappers:
            mask = self._memory.get(p, {}).get(wrapper.mask_slot)
            for gradient, reached in zip((f, r), wrapper.reaches(self._names[p]), strict=True):
                if not reached:
                    gradient.zero_()
                elif mask is not None:
                    gradient.mul_(mask)
        if self._rule is None:
            return f, r
        last = self._memory.get(p, {}).get(RETAIN)
        memory = self._rule.remember(r, last)
        if memory is None:
            return f, r
        if not self._is_kept(memory):
            return f, r if last is None else r.copy_(last)
        self._update(p, {RETAIN: memory})
        return f, memory.clone()

    def _find_masks(self, pairs: Mapping[Parameter, Pair]) -> None:
        """Let wrappers that have no masks yet make them, of this step's gradients."""
        parameters = {name: p for p, name in self._names.items()}
        named = {self._names[p]: pair for p, pair in pairs.items()}
        for wrapper in self._wrappers_without_masks():
            first = FirstGradients(named, lambda name, value: over_shards(value, parameters[name]))
            for name, mask in wrapper.masks(first).items():
                self._update(parameters[name], {wrapper.mask_slot: mask})

    def _wrappers_without_masks(self) -> list[CombinerWrapper]:
        if not self._wrappers:
            return []
        slots = {slot for state in self._memory.values() for slot in state}
        return [w for w in self._wrappers if w.reads_first_gradients and w.mask_slot not in slots]

    def _update(self, p: Parameter, state: TensorState) -> None:
        if state:
            self._memory[p] = {**self._memory.get(p, {}), **state}

    def _is_kept(self, memory: Tensor) -> bool:
        return not self._may_overflow or bool(memory.isfinite().all())


def _is_of(p: Parameter, tensor: Tensor) -> bool:
    """Whether a state's tensor has an element for each of its parameter's, on this rank."""
    return tensor.shape == local(p).shape


def _unwrapped(combiner: Combiner | None) -> tuple[list[CombinerWrapper], Rule | None]:
    """Return the wrappers from the outermost on, and the rule inside; None where f + r is meant.

    Raises:
        ContractError: the combiner is neither elementwise nor a projection.
    """
    wrappers: list[CombinerWrapper] = []
    while isinstance(combiner, CombinerWrapper):
        wrappers.append(combiner)
        combiner = combiner.combiner
    if not isinstance(combiner, ElementwiseCombiner | ProjectionCombiner | None):
        raise ContractError(
            f"{combiner.label} is neither elementwise nor a projection; derive it from "
            f"ElementwiseCombiner or ProjectionCombiner"
        )
    return wrappers, combiner
