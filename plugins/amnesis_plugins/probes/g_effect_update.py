"""The effective G-effect: of the update that was really made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from amnesis.contracts import Probe, StepContext
from amnesis_plugins.g_effect import EFFECTS, effect_values

if TYPE_CHECKING:
    from torch import Tensor

    from amnesis.data.batches import Batch
    from amnesis_plugins.g_effect import RiskGradient


@dataclass(frozen=True)
class Before:
    """The probe batches, their risks and the parameters as they were before the update."""

    batches: Mapping[str, Sequence[Batch]]
    risks: Mapping[str, RiskGradient]
    parameters: Mapping[str, Tensor]


class UpdateGEffect(Probe):
    """Effective G-effect: ``−⟨Δθ, ∇R(D)⟩`` of the update Δθ that was applied.

    Δθ is what combiner, clipping and optimizer made of the gradients: under Adam small weighted
    gradients are rescaled to full steps, which the raw effect cannot show. Negative raises the risk
    on D, as in the raw effect, but here the step's size is in it: nats. Beside it stands the
    measured change ``−(R(D; θ+Δθ) − R(D; θ))``: where the two part, first order can no longer be
    trusted. D is a probe batch, not the step's own, on which the effect does not rank methods:
    the next step's batch, or the first ``examples`` of each set. A watched step costs one
    gradient and one forward pass more per set, and memory for the parameters and two gradients.
    Source: this project; R and signs as in Wang et al. 2025, arXiv 2502.19301.
    """

    formula: ClassVar[str] = "−⟨Δθ, ∇R(D)⟩, beside −(R(D; θ+Δθ) − R(D; θ))"
    source: ClassVar[str] = "this project, after Wang et al. 2025, arXiv 2502.19301"

    logs: ClassVar[tuple[str, ...]] = (
        "g_effect/unlearn/",
        "g_effect/retain/",
        "g_effect/retain_over_unlearn/",
        "risk/",
    )

    on: Literal["next", "sets"] = Field("next", description="the next batches, or fixed examples")
    examples: int = Field(16, ge=1, description="of each set, where on is 'sets'")

    @property
    def watches_update(self) -> bool:
        """Yes."""
        return True

    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        """Return nothing yet: the update is still to come."""
        return {}, state

    def before_update(self, context: StepContext) -> Before:
        """Measure both risks and their gradients, and keep the parameters."""
        from amnesis_plugins.g_effect import risk_gradient, trained
        from amnesis_plugins.g_effect.sets import probe_batches

        batches = probe_batches(context, self.examples if self.on == "sets" else None)
        return Before(
            batches,
            {name: risk_gradient(context.model, own) for name, own in batches.items()},
            {name: p.detach().clone() for name, p in trained(context.model).items()},
        )

    def after_update(self, context: StepContext, held: Before) -> Mapping[str, float]:
        """Return ``g_effect/unlearn/effective``, ``…/measured``, the same of retain, the ratio."""
        from amnesis_plugins.g_effect import risk_value, update_products

        products = update_products(
            context.model, held.parameters, [r.direction for r in held.risks.values()]
        )
        layers = {
            EFFECTS[name]: {layer: -value for layer, value in by_layer.items()}
            for name, by_layer in zip(held.risks, products, strict=True)
        }
        values = effect_values(layers, "effective")
        for name, before in held.risks.items():
            values[f"risk/{name}"] = before.value
            after = risk_value(context.model, held.batches[name])
            values[f"g_effect/{EFFECTS[name]}/measured"] = before.value - after
        return values
