"""The G-effect of each step, from the gradients at hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from amnesis.contracts import Probe, Product, StepContext

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


class GEffect(Probe):
    """G-effect: ``e(L, D) = ⟨∇L, ∇R(D)⟩`` with ``R(D) = −mean_i ℓ_i``, total and per layer.

    L is the forget stream's loss; D is the step's own forget batch (``g_effect/unlearn``, wanted
    clearly negative) and retain batch (``g_effect/retain``, wanted ≥ 0). A descent step of size η
    changes R(D) by −η·e, so a negative e raises the risk on D. Inner products over groups of
    parameters add up to the total; a tied head belongs to the embedding's group. Source: Wang et
    al. 2025, arXiv 2502.19301, Definition 1; the authors' code smooths each gradient over batches
    and prints every fourth, this is each step's own, exactly.
    """

    formula: ClassVar[str] = "⟨∇L, ∇R(D)⟩, R(D) = −mean_i ℓ_i"
    source: ClassVar[str] = "Wang et al. 2025, arXiv 2502.19301"
    products: ClassVar[tuple[Product, ...]] = (
        ("forget", "forget_risk"),
        ("forget", "retain_risk"),
    )

    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        """Give ``g_effect/unlearn`` and ``g_effect/retain``, in total and for each layer."""
        values: dict[str, float] = {}
        for effect, pair in zip(("unlearn", "retain"), self.products, strict=True):
            if pair not in context.products:
                continue  # without a retain stream there is no retain batch
            by_name = context.products[pair]
            values[f"g_effect/{effect}"] = sum(by_name.values())
            for name, value in by_name.items():
                key = f"g_effect/{effect}/{layer_of(name)}"
                values[key] = values.get(key, 0.0) + value
        return values, state


def layer_of(parameter: str) -> str:
    """Give the group of a parameter: ``embedding``, ``block_07``, ``final_norm`` or ``head``."""
    block = _BLOCK.search(parameter)
    if block:
        return f"block_{int(block[1]):02d}"
    if re.search(r"embed|wte|wpe", parameter):
        return "embedding"
    return "head" if re.search(r"lm_head|embed_out|output", parameter) else "final_norm"
