"""Probes: observers of a run's gradients; they change nothing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from amnesis.contracts.component import Component

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from amnesis.contracts.stream import StreamLoss
    from amnesis.data.batches import Batch
    from amnesis.data.examples import Example
    from amnesis.scoring.reference import Reference

# ``forget`` and ``retain`` are the gradients of the two streams' losses. The risks are ∇R on the
# same batches, with R = −mean ℓ over label tokens, whatever the streams' own terms are.
Gradient = Literal["forget", "retain", "forget_risk", "retain_risk"]
Product = tuple[Gradient, Gradient]


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What a probe may read of the run that it watches; it is the same on every rank.

    Attributes:
        forget: the examples of the run's forget set.
        retain: those of its retain set, there also where no regularizer trains on it; or none.
        forget_loss: the forget stream's loss.
        reference: the frozen scores that the forget loss reads, or None.
        batches: returns the batches of any step by set, past the last step too, of all ranks
            together.
        pad_token_id: what to pad batches with.
        device: where the model is.
    """

    forget: Sequence[Example]
    retain: Sequence[Example]
    forget_loss: StreamLoss
    reference: Reference | None
    batches: Callable[[int], Mapping[str, Sequence[Batch]]]
    pad_token_id: int
    device: torch.device


@dataclass(frozen=True, kw_only=True)
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
    """Watches a run every ``every`` steps; may fail without stopping it (the failure is noted).

    ``products`` names the inner products of gradients that it reads. They are taken parameter by
    parameter while backward produces the gradients, so no tensor is kept for a probe's sake.
    ``logs`` is what the names of its values begin with, ``short_names`` what a recipe may call one
    of them instead of its whole name. A value that is not defined on a step is NaN: it is not
    logged, and a limit on it waits.
    """

    products: ClassVar[tuple[Product, ...]] = ()
    logs: ClassVar[tuple[str, ...]] = ()
    short_names: ClassVar[Mapping[str, str]] = {}

    every: int = Field(1, ge=1, description="observe the first and then every k-th step")

    def due(self, step: int) -> bool:
        """Whether the probe observes step ``step`` (from 0): 1, k, 2k … of those logged."""
        return step == 0 or (step + 1) % self.every == 0

    def initial_state(self) -> Any:
        """Return the JSON-able state that the run carries and checkpoints, if there is one."""
        return None

    @abstractmethod
    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        """Return what is to be logged of the step, and the state for the next."""

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
        """See the model after the optimizer moved it; return what is to be logged of the step."""
        return {}

    def figures(self, trajectory: Sequence[Mapping[str, float]]) -> Mapping[str, Any]:
        """Return matplotlib figures of a run's logged values by name; none, as for most probes."""
        return {}
