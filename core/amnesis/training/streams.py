"""Two gradients per optimizer step, combined in place, if possible during the last backward pass.

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
from functools import partial
from typing import TYPE_CHECKING

from amnesis.contracts.combiner import Combiner, Pair, gram_matrix
from amnesis.distributed.shards import inner_product, is_sharded, laid_as, local, over_all_shards
from amnesis.distributed.sums import RankSum
from amnesis.errors import ContractError
from amnesis.training.combining import Composition
from amnesis.training.report import StreamReport, Tally, sign_counts

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from amnesis.contracts.probe import Product

Summing = Callable[[Iterable["Parameter"]], RankSum]


class Streams:
    """Collects a forget and a retain gradient, and puts their combination into ``p.grad``.

    All backward passes inside :meth:`forget` add up to the forget gradient, all those inside
    :meth:`retain` to the retain gradient. Gradients are moved, not copied: no more than these two
    are in memory, and those that :meth:`collect` adds. With ``retain(last=True)`` a parameter's
    gradients are combined as soon as its retain gradient is complete, and its forget gradient is
    freed, while the backward pass goes on. This needs one process, no loss scaler, and a combiner
    that takes no inner products over all parameters. Where the two are only added, on a step that
    is not watched, autograd adds them, and there is one gradient.

    With several processes a stream's gradient is sent in parts during its ``last`` backward pass,
    and the forget gradient's travels while the retain stream is computed.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, Parameter]],
        combiner: Combiner | None,
        summing: Summing | None = None,
        scale: Callable[[], float] | None = None,
    ) -> None:
        """Collect the gradients of those named parameters that require one.

        Without a ``combiner`` the two gradients are added; a forget gradient alone is used as it
        is. ``summing`` makes the sum over ranks of one gradient of parameters; it is None for one
        process, and is not called where parameters are sharded, for then the backward passes sum.
        ``scale`` returns the factor of a loss scaler, by which both losses were multiplied:
        combiners and reports see gradients without it, and ``p.grad`` is left with it, for the
        scaler to divide.
        """
        self._names = {p: name for name, p in parameters if p.requires_grad}
        self._composition = Composition(self._names, combiner, may_overflow=scale is not None)
        self._scale = scale
        self._sharded = any(is_sharded(p) for p in self._names)
        self._summing = None if self._sharded else summing
        self._sums: dict[str, RankSum] = {}  # of this step
        self._held: dict[str, dict[Parameter, Tensor]] = {}
        self._combined: set[Parameter] = set()  # in this step
        self._statistics = False
        self._products: tuple[Product, ...] = ()
        self._tally = Tally()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the combiner's state, each tensor by its own name and its parameter's.

        Where a parameter is sharded its tensors are laid over ranks as it is.
        """
        return self._composition.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the combiner's state from what :meth:`state_dict` returned."""
        self._composition.load_state_dict(state)

    def watch(self, statistics: bool = True, products: Sequence[Product] = ()) -> None:
        """Have the report of the coming step filled, for it is empty otherwise.

        ``statistics`` are the two norms, the cosine and the shares of conflicting and zero
        elements; ``products`` are pairs of gradients whose inner products are reported for each
        parameter.
        """
        self._statistics, self._products = statistics, tuple(products)

    @contextmanager
    def collect(self, gradient: str) -> Iterator[None]:
        """Add the backward passes made inside ``with`` to the gradient of that name."""
        gradients = self._held.setdefault(gradient, {})
        for p in self._names:
            p.grad = gradients.pop(p, None)
        try:
            yield
        finally:
            for p in self._names:
                if p.grad is not None:
                    gradients[p] = p.grad
                    p.grad = None

    @property
    def parameters(self) -> Mapping[Parameter, str]:
        """The parameters that require gradients, with their names."""
        return self._names

    @property
    def sharded(self) -> bool:
        """Whether parameters are sharded over ranks, as FSDP2 does, which reduces gradients."""
        return self._sharded

    def take(self, gradient: str) -> dict[Parameter, Tensor]:
        """Return a gradient that was collected, summed over ranks, and keep it no longer."""
        self.complete(gradient)
        self._arrive(gradient)
        self._sums.pop(gradient, None)
        return self._held.pop(gradient)

    def complete(self, gradient: str) -> None:
        """Begin to sum a gradient over ranks, to which no backward pass of this step adds any more.

        Every rank must call it for the same gradients in the same order, even one that had no
        batch. What is not complete when gradients are combined is completed then.
        """
        if self._adds_up and gradient in ("forget", "retain"):
            if gradient == "forget":
                return  # the retain stream adds to it
            gradient = "forget"
        gradients = self._held.setdefault(gradient, {})
        if self._summing is not None:
            self._sum_of(gradient).close(partial(_filled, gradients))

    @contextmanager
    def forget(self, last: bool = False) -> Iterator[None]:
        """Add the backward passes made inside ``with`` to the forget gradient.

        ``last`` promises that a single backward pass is made inside, the stream's last one.

        Raises:
            ContractError: a second backward pass is made with ``last``.
        """
        with self.collect("forget"), self._sent_as_it_comes("forget", last and not self._adds_up):
            yield

    @contextmanager
    def retain(self, last: bool = False) -> Iterator[None]:
        """Add the backward passes made inside ``with`` to the retain gradient.

        ``last`` promises that a single backward pass is made inside, the step's last one.

        Raises:
            ContractError: a second backward pass is made with ``last``.
        """
        if not (last and self._combines_early):
            name = "forget" if self._adds_up else "retain"
            with self.collect(name), self._sent_as_it_comes(name, last):
                yield
            return
        handles = [
            p.register_post_accumulate_grad_hook(self._combine_early)  # type: ignore[no-untyped-call]
            for p in self._names
        ]
        gradients = self._held.setdefault("retain", {})
        for p in self._names:
            p.grad = gradients.get(p)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def combine(self) -> StreamReport:
        """Put the combined gradient into every ``p.grad``, and return the step's report."""
        # Every rank must sum the same gradients in the same order, even one without a batch.
        names = {"retain"} if self._adds_up else {"forget", "retain"}
        names |= {name for pair in self._products for name in pair}
        for name in sorted(names):
            self.complete(name)
        scale = 1.0 if self._scale is None else self._scale()
        if self._adds_up:
            self._arrive("forget")
            for p, gradient in self._held.pop("forget").items():
                p.grad = gradient
        elif self._may_combine_as_they_arrive:
            self._combine_as_they_arrive()
        else:
            for name in names:
                self._arrive(name)
            self._combine_held()
        for p in self._names if scale != 1 else ():
            if p.grad is not None:
                p.grad.mul_(scale)
        self._combined.clear()
        report = self._tally.report(self._products)
        self._held.clear()
        self._sums.clear()
        self._tally = Tally()
        self._statistics, self._products = False, ()
        return report

    @property
    def _adds_up(self) -> bool:
        """Whether this step's two gradients are collected as one: nobody looks at either."""
        return self._composition.adds and not (self._statistics or self._products)

    @property
    def _combines_early(self) -> bool:
        """Whether a parameter's gradients can be combined without knowing those of others."""
        return (
            self._summing is None
            and self._scale is None
            and not self._sharded
            and not self._composition.reads_all
        )

    @property
    def _may_combine_as_they_arrive(self) -> bool:
        """Whether the same can be said of several processes; statistics are of all parameters."""
        waits = self._composition.reads_all or self._statistics or self._scale is not None
        return bool(self._sums) and not waits

    def _sum_of(self, gradient: str) -> RankSum:
        if gradient not in self._sums:
            assert self._summing is not None  # noqa: S101  # asked before
            self._sums[gradient] = self._summing(self._names)
        return self._sums[gradient]

    @contextmanager
    def _sent_as_it_comes(self, gradient: str, last: bool) -> Iterator[None]:
        """Send the parts of a gradient over ranks as its ``last`` backward pass completes them."""
        complete = self._sum_of(gradient).complete if last and self._summing is not None else None
        handles = [
            p.register_post_accumulate_grad_hook(complete)  # type: ignore[no-untyped-call]
            for p in (self._names if complete is not None else ())
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _arrive(self, gradient: str) -> None:
        """Wait until a gradient is summed over ranks, and free it of a loss scaler's factor."""
        if self._summing is not None:
            for p in self._names:
                self._sums[gradient].wait(p)
        if self._scale is not None and (scale := self._scale()) != 1:
            for tensor in self._held[gradient].values():
                tensor.div_(scale)

    def _combine_as_they_arrive(self) -> None:
        """Combine each parameter's gradients while others are still on their way from ranks."""
        for p in self._sums["retain"].order:
            for under_way in self._sums.values():
                under_way.wait(p)
            self._combine_one(p)

    def _combine_held(self) -> None:
        """Combine all parameters whose gradients have not been combined yet."""
        pairs = {
            p: self._pair(p)
            for p in self._names
            if p not in self._combined and self._has_gradient(p)
        }
        if self._composition.reads_all and not pairs:
            raise RuntimeError("combine() was called before any backward pass")
        grams = self._observe(pairs)
        self._held.clear()
        self._composition.prepare(pairs, grams)
        for p in list(pairs):
            p.grad = laid_as(self._composition.combined(p, *pairs.pop(p), grams.get(p)), p)

    def _combine_early(self, p: Parameter) -> None:
        """Combine one parameter's gradients, of which the backward pass has just completed r."""
        if p in self._combined:
            raise ContractError(
                "retain(last=True) is for the step's last backward pass alone, but a second one "
                "was made inside it; put the others into a retain() before it"
            )
        if p.grad is not None:
            self._held["retain"][p] = p.grad
        self._combine_one(p)

    def _combine_one(self, p: Parameter) -> None:
        f, r = self._pair(p)
        gram = self._observe({p: (f, r)}).get(p)
        for gradients in self._held.values():
            gradients.pop(p, None)
        self._combined.add(p)
        p.grad = laid_as(self._composition.combined(p, f, r, gram), p)

    def _has_gradient(self, p: Parameter) -> bool:
        held = p in self._held["forget"] or p in self._held["retain"]
        return held or self._composition.remembers_retain(p)

    def _pair(self, p: Parameter) -> Pair:
        """Return f and r of a parameter: this rank's elements, zeros where there is no gradient."""
        f, r = self._held["forget"].get(p), self._held["retain"].get(p)
        f = p.new_zeros(p.shape) if f is None else f
        r = p.new_zeros(p.shape) if r is None else r
        return local(f), local(r)

    def _observe(self, pairs: Mapping[Parameter, Pair]) -> Mapping[Parameter, Tensor]:
        """Add to the step's tally what is reported; return the Gram matrices if that needed them.

        All are sums over shards, for which ranks exchange one message a kind, not a parameter.
        """
        for pair in self._products:
            products: dict[Parameter, Tensor] = {}
            for p, (f, r) in pairs.items():
                streams = {"forget": f, "retain": r}
                left, right = (streams.get(g, self._held.get(g, {}).get(p)) for g in pair)
                if left is not None and right is not None:
                    products[p] = inner_product(local(left), local(right))
            for p, product in over_all_shards(products).items():
                self._tally.add_product(pair, self._names[p], product)
        if not self._statistics:
            return {}
        grams = over_all_shards({p: gram_matrix(f, r) for p, (f, r) in pairs.items()})
        signs = over_all_shards({p: sign_counts(f, r) for p, (f, r) in pairs.items()})
        for p in pairs:
            self._tally.add(grams[p], signs[p])
        return grams


def _filled(gradients: dict[Parameter, Tensor], p: Parameter) -> Tensor:
    """Return p's gradient, set to zero where there is none, since every rank sums it."""
    if p not in gradients:
        gradients[p] = p.new_zeros(p.shape)
    return gradients[p]
