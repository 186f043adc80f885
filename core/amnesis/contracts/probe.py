"""Probes: observers of a run's gradients; they change nothing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from amnesis.contracts.component import Component

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from amnesis.contracts.stream import StreamLoss
    from amnesis.data.examples import ExampleSet
    from amnesis.data.sampling import StepBatches
    from amnesis.scoring.reference import Reference

# ``forget`` and ``retain`` are the gradients of the two streams' losses. The risks are ∇R on the
# same batches, with R = −mean ℓ over label tokens, whatever the streams' own terms are.
Gradient = Literal["forget", "retain", "forget_risk", "retain_risk"]
Product = tuple[Gradient, Gradient]


@dataclass(frozen=True)
class RunView:
    """What a probe may read of the run that it watches; it is the same on every rank.

    Attributes:
        forget: the run's forget set.
        retain: its retain set, there also where no regularizer trains on it; or None.
        forget_loss: the forget stream's loss.
        reference: gives the frozen scores that the forget loss reads, or None.
        batches: gives the batches of any step, past the last one too, of all ranks together.
        pad_token_id: what to pad batches with.
        device: where the model is.
    """

    forget: ExampleSet
    retain: ExampleSet | None
    forget_loss: StreamLoss
    reference: Reference | None
    batches: Callable[[int], StepBatches]
    pad_token_id: int
    device: Any


@dataclass(frozen=True)
class StepContext:
    """What a probe is shown of one optimizer step.

    Attributes:
        step: the step, from 0.
        model: the model being trained.
        values: what the run logs of the step anyway (losses, norms, cosine).
        products: the inner products asked for, ``{pair: {parameter name: float}}``.
        run: the run's data and losses, for probes that measure on their own.
    """

    step: int
    model: PreTrainedModel
    values: Mapping[str, float] = field(default_factory=dict)
    products: Mapping[Product, Mapping[str, float]] = field(default_factory=dict)
    run: RunView | None = None


class Probe(Component):
    """Watches a run every ``every`` steps; may fail without stopping it (the failure is told).

    ``products`` names the inner products of gradients that it reads. They are taken parameter by
    parameter while backward produces the gradients, so no tensor is kept for a probe's sake.
    """

    products: ClassVar[tuple[Product, ...]] = ()

    every: int = Field(1, ge=1, description="observe the first and then every k-th step")

    def due(self, step: int) -> bool:
        """Say whether the probe observes step ``step`` (from 0): 1, k, 2k … of those logged."""
        return step == 0 or (step + 1) % self.every == 0

    def initial_state(self) -> Any:
        """Give the JSON-able state that the run carries and checkpoints; None if there is none."""
        return None

    @abstractmethod
    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        """Give what is to be logged of the step, and the state for the next."""

    @property
    def watches_update(self) -> bool:
        """Whether :meth:`before_update` and :meth:`after_update` are to be called."""
        return False

    def before_update(self, context: StepContext) -> Any:
        """See the model before the optimizer moves it; the combined, clipped gradient is in p.grad.

        What is returned is held until :meth:`after_update` of the same step, never checkpointed.
        """
        return None

    def after_update(self, context: StepContext, held: Any) -> Mapping[str, float]:
        """See the model after the optimizer moved it; give what is to be logged of the step."""
        return {}
