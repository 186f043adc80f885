"""Probes: observers of a run's gradients and updates, which change nothing."""

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
# same batches, with R = −mean ℓ over label tokens, whatever the losses of the streams are.
Gradient = Literal["forget", "retain", "forget_risk", "retain_risk"]
Product = tuple[Gradient, Gradient]


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What a probe may read of the run that it observes; the same on every rank.

    Attributes:
        forget: the examples of the forget set.
        retain: the examples of the retain set, even if no regularizer trains on them; empty where
            the run has none.
        forget_loss: the forget stream's loss.
        reference: the frozen reference of the forget stream; None where its loss reads none.
        batches: a function that returns the batches of a step (from 0) by set, those of all ranks
            together; it also works for the step after the last.
        pad_token_id: the id to pad batches with.
        device: the device that the model is on.
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
    """What a probe may read of one optimizer step.

    Attributes:
        step: the step, counted from 0.
        model: the model that is trained.
        values: the step's logged values so far (losses, norms, cosine), by name.
        products: the inner products that the probe declares, ``{pair: {parameter name: value}}``;
            a pair with a stream that the run does not have is missing.
        run: the run's data and losses, for a probe that makes measurements of its own.
    """

    step: int
    model: PreTrainedModel
    values: Mapping[str, float] = field(default_factory=dict)
    products: Mapping[Product, Mapping[str, float]] = field(default_factory=dict)
    run: RunView | None = None


class Probe(Component):
    """An observer of a run, at every ``every``-th step.

    A probe that raises is switched off and noted; the run goes on. ``products`` declares the inner
    products of gradients that it reads: they are computed parameter by parameter as the backward
    pass completes the gradients, so that none has to stay in memory. ``logs`` are the prefixes of
    the names of its values, and ``short_names`` maps names that a recipe may use to those. A value
    that is not defined at a step is NaN: it is not logged, and limits on it wait.

    TensorBoard draws the values of each of ``charts``, ``{title: names}``, together. ``one_unit``
    are names whose values, and those of names below them, it shows in one power of ten where they
    are small.
    """

    products: ClassVar[tuple[Product, ...]] = ()
    logs: ClassVar[tuple[str, ...]] = ()
    short_names: ClassVar[Mapping[str, str]] = {}
    charts: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    one_unit: ClassVar[tuple[str, ...]] = ()

    every: int = Field(1, ge=1, description="observe the first and then every k-th step")

    def due(self, step: int) -> bool:
        """Whether the probe observes a step, counted from 0: the first, and every k-th."""
        return step == 0 or (step + 1) % self.every == 0

    def initial_state(self) -> Any:
        """Return the state before the first step, as plain JSON values, or None for none.

        The run passes it to :meth:`report` and stores it in checkpoints.
        """
        return None

    @abstractmethod
    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        """Return the values to log of a step, by name, and the state for the next one."""

    @property
    def watches_update(self) -> bool:
        """Whether :meth:`before_update` and :meth:`after_update` are called."""
        return False

    def before_update(self, context: StepContext) -> Any:
        """Return what :meth:`after_update` of the same step needs; called before the optimizer.

        Each parameter's ``grad`` is the combined and clipped gradient. What is returned is not
        stored in checkpoints.
        """
        return None

    def after_update(self, context: StepContext, held: Any) -> Mapping[str, float]:
        """Return the values to log of a step, by name; called after the optimizer.

        ``held`` is what :meth:`before_update` returned.
        """
        return {}

    def figures(self, trajectory: Sequence[Mapping[str, float]]) -> Mapping[str, Any]:
        """Return matplotlib figures for TensorBoard, by name; most probes have none.

        ``trajectory`` is the logged values of each step.
        """
        return {}
