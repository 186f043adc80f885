"""Directions in parameter space: ∇R of a set, by parameter name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amnesis.errors import ModelError
from amnesis.loss import risk
from amnesis.scoring.forward import evaluating, score
from amnesis.scoring.scores import Needs

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
    """Give the parameters over which gradients are taken: those that require one (LoRA: its own).

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
    """Give R of the set that ``batches`` make up, and ∇R; what is in ``p.grad`` is left alone."""
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
    """Give R of the set that ``batches`` make up, in nats, without any gradient."""
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


def refuse_sharded(model: nn.Module, what: str) -> None:
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
