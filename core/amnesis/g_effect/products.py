"""The G-effect in total and by layer, with ∇R at hand: one inner product per parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from amnesis.distributed.processes import added_over_ranks
from amnesis.distributed.shards import inner_product
from amnesis.g_effect.directions import Direction, gradients_aside, trained
from amnesis.g_effect.layers import layers_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Parameter

ByLayer = dict[str, float]


class LayerProducts:
    """Adds up ⟨g, v⟩ by layer, on the device, for each of several directions v."""

    def __init__(self, model: nn.Module, directions: Sequence[Direction]) -> None:
        """Take the directions, by the parameter names of ``model``."""
        self._layers = layers_of(model)
        self._directions = directions
        self._sums: list[dict[str, Tensor]] = [{} for _ in directions]
        self._sharded = False

    def add(self, name: str, gradient: Tensor) -> None:
        """Add one parameter's gradient (or change)."""
        layer = self._layers[name]
        for sums, direction in zip(self._sums, self._directions, strict=True):
            product = inner_product(self._local(gradient), self._local(direction[name]))
            sums[layer] = sums[layer] + product.to(sums[layer]) if layer in sums else product

    def by_layer(self) -> list[ByLayer]:
        """Give ``{layer: ⟨g, v⟩}`` for each direction; shards are added over ranks."""
        found = [{layer: s.item() for layer, s in sums.items()} for sums in self._sums]
        return [added_over_ranks(one) for one in found] if self._sharded else found

    def _local(self, tensor: Tensor) -> Tensor:
        """Give this process's shard: inner products of shards add up to that of the whole."""
        if not hasattr(tensor, "to_local"):
            return tensor
        self._sharded = True
        local: Tensor = tensor.to_local()
        return local


@contextmanager
def products_with(model: nn.Module, directions: Sequence[Direction]) -> Iterator[LayerProducts]:
    """Take ⟨∇L, v⟩ from the backward passes made inside, and drop each gradient once it is read.

    The product is taken in the parameter's post-accumulate hook, so no second gradient exists at
    any time. What was in ``p.grad`` before is put back.
    """
    parameters = trained(model)
    tally = LayerProducts(model, directions)

    def reading(name: str) -> Callable[[Parameter], None]:
        def read(p: Parameter) -> None:
            assert p.grad is not None  # noqa: S101  # this hook runs after it was written
            tally.add(name, p.grad)
            p.grad = None

        return read

    with gradients_aside(parameters):
        handles = [
            p.register_post_accumulate_grad_hook(reading(name))  # type: ignore[no-untyped-call]
            for name, p in parameters.items()
        ]
        try:
            yield tally
        finally:
            for handle in handles:
                handle.remove()


def update_products(
    model: nn.Module, before: Mapping[str, Tensor], directions: Sequence[Direction]
) -> list[ByLayer]:
    """Give ⟨Δθ, v⟩ by layer for each direction, Δθ from the parameters as they were ``before``."""
    tally = LayerProducts(model, directions)
    for name, p in trained(model).items():
        tally.add(name, p.detach() - before[name])
    return tally.by_layer()
