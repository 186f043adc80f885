"""The G-effect on fixed examples of both sets, example by example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from amnesis.contracts import Probe, StepContext
from amnesis_plugins.g_effect import EFFECTS, effect_values
from amnesis_plugins.g_effect.pictures import layer_figures


class SetGEffect(Probe):
    """G-effect of the run's objective on the first ``examples`` of both sets, by ghost products.

    Unlike ``g_effect`` it does not depend on the step's batch, so steps can be compared, and a run
    without a retain stream has it too. The shares of the single forget examples, which add up to
    the total, are logged by the example's number; TensorBoard shows them as a histogram. It costs
    two gradients and one more backward pass. Source: Wang et al. 2025, arXiv 2502.19301,
    Definition 1.
    """

    formula: ClassVar[str] = "⟨∇L(D_forget), ∇R(D)⟩ = Σ_b e_b"
    source: ClassVar[str] = "Wang et al. 2025, arXiv 2502.19301"

    logs: ClassVar[tuple[str, ...]] = ("g_effect/sets/",)
    charts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "G-effect on fixed examples": ("g_effect/sets/unlearn", "g_effect/sets/retain"),
    }
    one_unit: ClassVar[tuple[str, ...]] = ("g_effect/sets/unlearn", "g_effect/sets/retain")

    every: int = Field(10, ge=1, description="measure the first and then every k-th step")
    examples: int = Field(16, ge=1, description="how many of each set, from its beginning")

    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        """Return ``g_effect/sets/unlearn``, ``…/retain`` and their ratio.

        Both effects come in total, by layer and by forget example.

        Raises:
            ContractError: ``context.run`` is None.
        """
        from amnesis_plugins.g_effect import risk_gradient
        from amnesis_plugins.g_effect.sets import first_examples
        from amnesis_plugins.g_effect.splits import example_effects

        sets = first_examples(context, self.examples)
        directions = {
            name: risk_gradient(context.model, measured_set.batches).direction
            for name, measured_set in sets.items()
        }
        assert context.run is not None  # noqa: S101  # first_examples has checked it
        table = example_effects(
            context.model,
            sets["forget"],
            context.run.forget_loss.at(context.step),
            directions,
            context.run.reference,
        )
        layers = {EFFECTS[name]: table.totals("layer", set=name) for name in sets}
        values = effect_values(layers, prefix="g_effect/sets")
        for name in sets:
            prefix = f"g_effect/sets/{EFFECTS[name]}/examples"
            shares = table.totals("example", set=name)
            values |= {f"{prefix}/{example}": share for example, share in shares.items()}
        return values, state

    def figures(self, trajectory: Sequence[Mapping[str, float]]) -> Mapping[str, Any]:
        """Return ``{"g_effect/sets/layers": figure}``, a heat map of layers × steps."""
        return layer_figures(trajectory, "g_effect/sets")
