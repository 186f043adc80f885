"""Probes: observers of a run's gradients; they change nothing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from amnesis.contracts.component import Component

if TYPE_CHECKING:
    from torch import nn

# ``forget`` and ``retain`` are the gradients of the two streams' losses. The risks are ∇R on the
# same batches, with R = −mean ℓ over label tokens, whatever the streams' own terms are.
Gradient = Literal["forget", "retain", "forget_risk", "retain_risk"]
Product = tuple[Gradient, Gradient]


@dataclass(frozen=True)
class StepContext:
    """What a probe is shown of one optimizer step.

    Attributes:
        step: the step, from 0.
        model: the model being trained.
        values: what the run logs of the step anyway (losses, norms, cosine).
        products: the inner products asked for, ``{pair: {parameter name: float}}``.
    """

    step: int
    model: nn.Module
    values: Mapping[str, float] = field(default_factory=dict)
    products: Mapping[Product, Mapping[str, float]] = field(default_factory=dict)


class Probe(Component):
    """Watches a run every ``every`` steps; may fail without stopping it (the failure is told).

    ``products`` names the inner products of gradients that it reads. They are taken parameter by
    parameter while backward produces the gradients, so no tensor is kept for a probe's sake.
    """

    products: ClassVar[tuple[Product, ...]] = ()

    every: int = Field(1, ge=1, description="observe every k-th step, the first included")

    def due(self, step: int) -> bool:
        """Say whether the probe observes step ``step`` (from 0)."""
        return step % self.every == 0

    def initial_state(self) -> Any:
        """Give the JSON-able state that the run carries and checkpoints; None if there is none."""
        return None

    @abstractmethod
    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        """Give what is to be logged of the step, and the state for the next."""
