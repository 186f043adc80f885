"""The G-effect of each step on the step's own batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from amnesis.contracts import Probe, Product, StepContext
from amnesis_plugins.g_effect import by_layer, effect_values
from amnesis_plugins.g_effect.pictures import layer_figures


class GEffect(Probe):
    """G-effect: ``e(L, D) = ⟨∇L, ∇R(D)⟩`` with ``R(D) = −mean_i ℓ_i``, total and per layer.

    L is the forget stream's loss; D is the step's own forget batch (``g_effect/unlearn``, which
    should be clearly negative) and retain batch (``g_effect/retain``, which should be ≥ 0). A
    descent step of size η changes R(D) by −η·e, so a negative e raises the risk on D. The inner
    products of the layers add up to the total; the layer of a tied head is ``tied_embedding``.
    ``g_effect/regularizer/unlearn`` and ``…/retain`` are the same of the retain stream's loss, in
    total: positive where it undoes forgetting, and where it protects.

    Where a stream's loss is a multiple of R (GA, NLL), its gradient is ∇R and all of this is at
    hand. Any other needs a backward pass of R for itself, by which a step with both streams takes
    up to half as long again; hence ``every``. Source: Wang et al. 2025, arXiv 2502.19301,
    Definition 1. Deviation: the authors' code smooths each gradient over batches and prints every
    fourth value; this is the exact value of the steps that are observed.
    """

    formula: ClassVar[str] = "⟨∇L, ∇R(D)⟩, R(D) = −mean_i ℓ_i"
    source: ClassVar[str] = "Wang et al. 2025, arXiv 2502.19301"
    products: ClassVar[tuple[Product, ...]] = (
        ("forget", "forget_risk"),
        ("forget", "retain_risk"),
        ("retain", "forget_risk"),
        ("retain", "retain_risk"),
    )
    logs: ClassVar[tuple[str, ...]] = (
        "g_effect/unlearn",
        "g_effect/retain",
        "g_effect/regularizer/",
    )
    short_names: ClassVar[Mapping[str, str]] = {
        "retain_over_unlearn": "g_effect/retain_over_unlearn"
    }
    charts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "G-effect of the objective": ("g_effect/unlearn", "g_effect/retain"),
        "G-effect of the regularizer": (
            "g_effect/regularizer/unlearn",
            "g_effect/regularizer/retain",
        ),
        "harm per unit of forgetting": ("g_effect/retain_over_unlearn",),
    }
    one_unit: ClassVar[tuple[str, ...]] = (
        "g_effect/unlearn",
        "g_effect/retain",
        "g_effect/regularizer",
    )

    every: int = Field(5, ge=1, description="observe the first and then every k-th step")

    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        """Return ``g_effect/unlearn``, ``g_effect/retain`` and their ratio, in total and by layer.

        With them come ``g_effect/regularizer/unlearn`` and ``…/retain``. A run without a retain
        stream has no retain batch, and reports the first of all these only.
        """
        effects = dict(zip(self.products, ("unlearn", "retain") * 2, strict=True))
        layers = {
            effects[pair]: by_layer(context.model, context.products[pair])
            for pair in self.products
            if pair[0] == "forget" and pair in context.products
        }
        of_regularizer = {
            f"g_effect/regularizer/{effects[pair]}": sum(context.products[pair].values())
            for pair in self.products
            if pair[0] == "retain" and pair in context.products
        }
        return {**effect_values(layers), **of_regularizer}, state

    def figures(self, trajectory: Sequence[Mapping[str, float]]) -> Mapping[str, Any]:
        """Return ``{"g_effect/layers": figure}``, a heat map of layers × steps."""
        return layer_figures(trajectory, "g_effect")
