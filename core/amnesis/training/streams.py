"""Two gradients per optimizer step, in place, combined while the last backward runs.

streams = Streams(model.named_parameters(), amnesis.create("combiner", "sago"))
for forget_batch, retain_batch in batches:
    with streams.forget():
        forget_loss(forget_batch).backward()
    with streams.retain(last=True):
        retain_loss(retain_batch).backward()
    report = streams.combine()
    optimizer.step()
    optimizer.zero_grad()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from amnesis.contracts.combiner import (
    Combiner,
    ElementwiseCombiner,
    ProjectionCombiner,
    gram_matrix,
    linear,
)
from amnesis.distributed.shards import inner_product, is_sharded, laid_as, local, over_shards
from amnesis.errors import ContractError
from amnesis.training.report import StreamReport, Tally, sign_counts

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from amnesis.contracts.combiner import Coefficients
    from amnesis.contracts.probe import Product

Reduce = Callable[[Sequence["Tensor"]], None]


class Streams:
    """Collects a forget and a retain gradient, and leaves their combination in ``p.grad``.

    Gradients of one stream accumulate over as many backward passes as are made inside
    :meth:`forget` and :meth:`retain`. Only pointers move: at its peak a step holds the retain
    gradient in ``p.grad`` and one more gradient beside it. With ``retain(last=True)`` each
    parameter is combined as soon as its gradient is complete, and the forget gradient freed.

    ``reduce`` sums a list of tensors over ranks, in place; without it there is one process.
    ``scale`` gives what both streams' losses are multiplied by, a loss scaler's factor: combiners
    see the gradients themselves, and ``p.grad`` is left multiplied by it, for the scaler to divide.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, Parameter]],
        combiner: Combiner | None,
        reduce: Reduce | None = None,
        scale: Callable[[], float] | None = None,
    ) -> None:
        """Take named parameters; those that do not require a gradient are left alone.

        ``combiner`` None adds the two gradients; that of a forget stream alone is used as it is.
        """
        self._names = {p: name for name, p in parameters if p.requires_grad}
        self._combiner = combiner
        self._reduce = reduce
        self._scale = scale
        self._sharded = any(is_sharded(p) for p in self._names)
        self._held: dict[str, dict[Parameter, Tensor]] = {}
        self._memory: dict[Parameter, Tensor] = {}
        self._remembered: set[Parameter] = set()
        self._finished: set[Parameter] = set()
        self._watched = False
        self._products: tuple[Product, ...] = ()
        self._seen = Tally()

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the combiner remembers, by parameter name: to be checkpointed."""
        return {self._names[p]: kept for p, kept in self._memory.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        named = {name: p for p, name in self._names.items()}
        self._memory = {named[name]: kept.to(named[name].device) for name, kept in state.items()}

    def watch(self, statistics: bool = True, products: Sequence[Product] = ()) -> None:
        """Ask that the coming step's report be filled: norms, cosine, conflicts, products."""
        self._watched, self._products = statistics, tuple(products)

    @contextmanager
    def collect(self, gradient: str) -> Iterator[None]:
        """Add the backward passes made inside to the gradient of that name."""
        held = self._held.setdefault(gradient, {})
        for p in self._names:
            p.grad = held.pop(p, None)
        try:
            yield
        finally:
            for p in self._names:
                if p.grad is not None:
                    held[p] = p.grad
                    p.grad = None

    def forget(self) -> object:
        """Collect the forget gradient from the backward passes made inside ``with``."""
        return self.collect("forget")

    @contextmanager
    def retain(self, last: bool = False) -> Iterator[None]:
        """Collect the retain gradient; ``last`` says that this step has no retain pass after it."""
        if not (last and self._streams):
            with self.collect("retain"):
                yield
            return
        handles = [
            p.register_post_accumulate_grad_hook(self._finish)  # type: ignore[no-untyped-call]
            for p in self._names
        ]
        held = self._held.setdefault("retain", {})
        for p in self._names:
            p.grad = held.get(p)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def combine(self) -> StreamReport:
        """Leave the combined gradient in every ``p.grad`` and report what went into it."""
        # Every rank must reduce the same gradients in the same order, also one without a batch.
        names = {"forget", "retain", *(name for pair in self._products for name in pair)}
        for name in sorted(names):
            held = self._held.setdefault(name, {})
            if self._reduce is not None:
                self._reduce([self._filled(held, p) for p in self._names])
        scale = 1.0 if self._scale is None else self._scale()
        for held in self._held.values() if scale != 1 else ():
            for gradient in held.values():
                gradient.div_(scale)
        total = self._total_coefficients() if self._needs_total_gram else None
        for p in self._names:
            if p not in self._finished and self._has_gradient(p):
                self._finish(p, total)
            if scale != 1 and p.grad is not None:
                p.grad.mul_(scale)
        self._remembered.clear()
        self._finished.clear()
        report = self._seen.report(self._products)
        self._held.clear()
        self._seen = Tally()
        self._watched, self._products = False, ()
        return report

    @property
    def _streams(self) -> bool:
        """Whether parameters can be combined one by one, while backward runs."""
        return (
            self._reduce is None
            and self._scale is None
            and not self._sharded
            and not self._needs_total_gram
        )

    @property
    def _needs_total_gram(self) -> bool:
        combiner = self._combiner
        return (
            isinstance(combiner, ProjectionCombiner)
            and combiner.reads_gram
            and combiner.scope == "global"
        )

    def _filled(self, held: dict[Parameter, Tensor], p: Parameter) -> Tensor:
        """Return the gradient held for p; ranks must reduce the same tensors, so a zero if none."""
        if p not in held:
            held[p] = p.new_zeros(p.shape)
        return held[p]

    def _total_coefficients(self) -> tuple[float, float]:
        combiner = self._combiner
        assert isinstance(combiner, ProjectionCombiner)  # noqa: S101  # _needs_total_gram
        total: Tensor | None = None
        for p in self._names:
            if self._has_gradient(p):
                f, r = self._pair(p)
                gram = over_shards(gram_matrix(f, self._recalled(p, r)), p)
                total = gram if total is None else total + gram.to(total.device)
        if total is None:
            raise RuntimeError("combine() was called before any backward pass")
        return combiner.total_coefficients(total)

    def _has_gradient(self, p: Parameter) -> bool:
        held = (self._held["forget"], self._held["retain"], self._memory)
        return any(p in gradients for gradients in held)

    def _pair(self, p: Parameter) -> tuple[Tensor, Tensor]:
        f, r = self._held["forget"].get(p), self._held["retain"].get(p)
        f = p.new_zeros(p.shape) if f is None else f  # each its own: both may be missing
        r = p.new_zeros(p.shape) if r is None else r
        return local(f), local(r)

    def _recalled(self, p: Parameter, r: Tensor) -> Tensor:
        """Let the combiner remember r, once a step, and give what then stands in r's place."""
        if self._combiner is not None and p not in self._remembered:
            self._remembered.add(p)
            kept = self._combiner.remember(r, self._memory.get(p))
            # A step that overflows under a loss scaler is skipped; what it leaves must not stay.
            if kept is not None and (self._scale is None or bool(kept.isfinite().all())):
                self._memory[p] = kept
        return self._memory.get(p, r)

    def _finish(self, p: Parameter, total: Coefficients | None = None) -> None:
        """Combine one parameter's gradients into ``p.grad`` and free what is not needed."""
        if p in self._finished:
            raise ContractError(
                "retain(last=True) is for the step's last backward pass alone, but a second one "
                "was made inside it; put the others into a retain() before it"
            )
        if p.grad is not None:  # called by backward: the gradient has just been completed
            self._held["retain"][p] = p.grad
        f, r = self._pair(p)
        alone = p not in self._held["retain"]
        gram = self._look(p, f, r)
        for held in self._held.values():
            held.pop(p, None)
        self._finished.add(p)
        if self._combiner is None:
            p.grad = laid_as(f if alone else linear(f, r, (1.0, 1.0)), p)
            return
        kept = self._recalled(p, r)
        if kept is not r:
            r, gram = r.copy_(kept), None
        p.grad = laid_as(self._combined(p, self._combiner, f, r, gram, total), p)

    def _combined(
        self,
        p: Parameter,
        combiner: Combiner,
        f: Tensor,
        r: Tensor,
        gram: Tensor | None,
        total: Coefficients | None,
    ) -> Tensor:
        if isinstance(combiner, ElementwiseCombiner):
            return combiner.checked_tensor(f, r)
        if not isinstance(combiner, ProjectionCombiner):
            raise ContractError(
                f"{combiner.label} is neither elementwise nor a projection; derive it from "
                f"ElementwiseCombiner or ProjectionCombiner"
            )
        if not combiner.reads_gram:
            total = combiner.coefficients(f.new_zeros(2, 2))
        elif combiner.scope == "tensor":
            gram = over_shards(gram_matrix(f, r), p) if gram is None else gram
            total = combiner.coefficients(gram)
        assert total is not None  # noqa: S101  # combine() gave them
        return linear(f, r, total)

    def _look(self, p: Parameter, f: Tensor, r: Tensor) -> Tensor | None:
        if self._products:
            both = {"forget": f, "retain": r}
            for pair in self._products:
                left, right = (both.get(g, self._held.get(g, {}).get(p)) for g in pair)
                if left is not None and right is not None:
                    product = over_shards(inner_product(local(left), local(right)), p)
                    self._seen.add_product(pair, self._names[p], product)
        if not self._watched:
            return None
        gram = over_shards(gram_matrix(f, r), p)
        self._seen.add(gram, over_shards(sign_counts(f, r), p))
        return gram
