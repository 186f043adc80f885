"""Directions in parameter space: ∇R of a set, by parameter name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amnesis.contracts.stream import risk
from amnesis.distributed.processes import added_over_ranks
from amnesis.distributed.shards import inner_product
from amnesis.errors import ModelError
from amnesis.scoring.forward import evaluating, score
from amnesis.scoring.scores import Needs
from amnesis_plugins.g_effect.layers import layers_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Parameter
    from transformers import PreTrainedModel

    from amnesis.data.batches import Batch

Direction = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class RiskGradient:
    """R(D) = −mean_i ℓ_i over all label tokens of a set, in nats, and its gradient."""

    value: float
    direction: Direction


def trained(model: nn.Module) -> dict[str, Parameter]:
    """Return the parameters over which gradients are taken: those that require one (LoRA: its own).

    Raises:
        ModelError: nothing requires a gradient.
    """
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not found:
        raise ModelError(
            "no parameter of the model requires a gradient, so there is no G-effect; "
            "load an adapter with is_trainable=True, or call model.requires_grad_()"
        )
    return found


def risk_gradient(model: PreTrainedModel, batches: Sequence[Batch]) -> RiskGradient:
    """Return R of the set that ``batches`` make up, and ∇R; what is in ``p.grad`` is left alone."""
    parameters = trained(model)
    tokens = sum(batch.count("tokens") for batch in batches)
    value = 0.0
    with evaluating(model), gradients_aside(parameters):
        for batch in batches:
            scores = score(model, batch, Needs(logps=True))
            share = risk(scores, {("answer", "tokens"): tokens})
            share.backward()  # type: ignore[no-untyped-call]
            value += share.item()
        direction = {
            name: p.grad if p.grad is not None else p.new_zeros(p.shape)
            for name, p in parameters.items()
        }
    return RiskGradient(value, direction)


def risk_value(model: PreTrainedModel, batches: Sequence[Batch]) -> float:
    """Return R of the set that ``batches`` make up, in nats, without any gradient."""
    import torch

    tokens = sum(batch.count("tokens") for batch in batches)
    with evaluating(model), torch.no_grad():
        return sum(
            risk(score(model, batch, Needs(logps=True)), {("answer", "tokens"): tokens}).item()
            for batch in batches
        )


@contextmanager
def gradients_aside(parameters: Mapping[str, Parameter]) -> Iterator[None]:
    """Let backward passes inside start from no gradient, and put the old ones back."""
    held = {name: p.grad for name, p in parameters.items()}
    for p in parameters.values():
        p.grad = None
    try:
        yield
    finally:
        for name, p in parameters.items():
            p.grad = held[name]


def check_whole(model: nn.Module, what: str) -> None:
    """Refuse parameters that no process holds whole.

    Raises:
        ModelError: a parameter is a shard.
    """
    for name, p in model.named_parameters():
        if hasattr(p, "full_tensor"):
            raise ModelError(
                f"{what} needs whole parameters, but {name} is sharded; "
                f"ask for the total or by layer, which add up over shards"
            )


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
        """Return ``{layer: ⟨g, v⟩}`` for each direction; shards are added over ranks."""
        found = [{layer: s.item() for layer, s in sums.items()} for sums in self._sums]
        return [added_over_ranks(one) for one in found] if self._sharded else found

    def _local(self, tensor: Tensor) -> Tensor:
        """Return this process's shard: inner products of shards add up to that of the whole."""
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
    """Return ⟨Δθ, v⟩ by layer for each direction, Δθ from the parameters as they were ``before``."""
    tally = LayerProducts(model, directions)
    for name, p in trained(model).items():
        tally.add(name, p.detach() - before[name])
    return tally.by_layer()
