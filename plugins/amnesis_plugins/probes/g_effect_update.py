"""The effective G-effect: that of the update that the optimizer applied."""

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
    """The measured batches of each set, their risks, and the parameters before the update."""

    batches: Mapping[str, Sequence[Batch]]
    risks: Mapping[str, RiskGradient]
    parameters: Mapping[str, Tensor]


class UpdateGEffect(Probe):
    """Effective G-effect: ``−⟨Δθ, ∇R(D)⟩`` of the update Δθ that was applied.

    Δθ is what combiner, clipping, optimizer and rounding made of the gradients: Adam rescales small
    weighted gradients to full steps, which the raw effect cannot show, and of weights in bfloat16
    it is the change as stored, which may be far from what the optimizer computed. A negative value
    raises the risk on D, as in the raw effect, but it includes the step's size, so its unit is
    nats. Beside it stands the measured change ``−(R(D; θ+Δθ) − R(D; θ))``; where the two disagree,
    the first-order effect can no longer be trusted. D is not the step's own batch, on which the
    effect does not rank methods, but the next step's, or the first ``examples`` of each set. A step
    that is observed costs one more gradient and forward pass per set, and memory for the parameters
    and two gradients. Source: this project; R and signs as in Wang et al. 2025, arXiv 2502.19301.
    """

    formula: ClassVar[str] = "−⟨Δθ, ∇R(D)⟩, beside −(R(D; θ+Δθ) − R(D; θ))"
    source: ClassVar[str] = "this project, after Wang et al. 2025, arXiv 2502.19301"

    logs: ClassVar[tuple[str, ...]] = (
        "g_effect/unlearn/",
        "g_effect/retain/",
        "g_effect/retain_over_unlearn/",
        "risk/",
    )
    charts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effective G-effect of the update, in nats": (
            "g_effect/unlearn/effective",
            "g_effect/retain/effective",
        ),
        "measured change of the risks, in nats": (
            "g_effect/unlearn/measured",
            "g_effect/retain/measured",
        ),
    }
    one_unit: ClassVar[tuple[str, ...]] = (
        "g_effect/unlearn/effective",
        "g_effect/retain/effective",
        "g_effect/unlearn/measured",
        "g_effect/retain/measured",
    )

    on: Literal["next", "sets"] = Field("next", description="the next batches, or fixed examples")
    examples: int = Field(16, ge=1, description="of each set, where on is 'sets'")

    @property
    def watches_update(self) -> bool:
        """True: the update itself is measured."""
        return True

    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        """Return no values: the update has not been made yet."""
        return {}, state

    def before_update(self, context: StepContext) -> Before:
        """Return the measured batches, their risks and gradients, and a copy of the parameters."""
        from amnesis_plugins.g_effect import risk_gradient, trained
        from amnesis_plugins.g_effect.sets import measured_batches

        batches = measured_batches(context, self.examples if self.on == "sets" else None)
        return Before(
            batches,
            {name: risk_gradient(context.model, group) for name, group in batches.items()},
            {name: p.detach().clone() for name, p in trained(context.model).items()},
        )

    def after_update(self, context: StepContext, held: Before) -> Mapping[str, float]:
        """Return the effects in nats: effective (also by layer), measured, and the effective ratio.

        Their names are ``g_effect/unlearn/effective``, ``g_effect/unlearn/measured``, the same of
        ``retain``, and ``g_effect/retain_over_unlearn/effective``; ``risk/forget`` and
        ``risk/retain`` are the risks before the update.
        """
        from amnesis_plugins.g_effect import risk_value, update_products

        products = update_products(
            context.model, held.parameters, [r.direction for r in held.risks.values()]
        )
        layers = {
            EFFECTS[name]: {layer: -product for layer, product in by_layer.items()}
            for name, by_layer in zip(held.risks, products, strict=True)
        }
        values = effect_values(layers, "effective")
        for name, before in held.risks.items():
            values[f"risk/{name}"] = before.value
            after = risk_value(context.model, held.batches[name])
            values[f"g_effect/{EFFECTS[name]}/measured"] = before.value - after
        return values
