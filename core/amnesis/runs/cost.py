"""What a run will cost, as far as it can be known before a weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amnesis.data.examples import Mixture

if TYPE_CHECKING:
    from amnesis.discovery.resolve import Method
    from amnesis.runs.recipe import Recipe

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Steps, passes and memory that a run will take.

    ``steps_at_least`` says that ``steps`` is a lower bound: plain texts are counted as rows, and
    become more examples where they are cut into chunks.
    """

    steps: int
    forget_rows: int
    retain_rows: int
    forwards_per_step: int
    evaluations: int
    parameters: int | None
    memory_gib: float | None
    steps_at_least: bool = False

    def lines(self) -> list[str]:
        """Return it in words, a line for each kind of cost."""
        size = "" if self.parameters is None else f"{self.parameters / 1e6:,.1f} M parameters, "
        memory = "unknown" if self.memory_gib is None else f"about {self.memory_gib:.1f} GiB"
        least = "at least " if self.steps_at_least else ""
        return [
            f"{least}{self.steps} steps, "
            f"{self.forget_rows} forget and {self.retain_rows} retain rows",
            f"{self.forwards_per_step} forward passes a step, {self.evaluations} evaluations",
            f"{size}{memory} for weights, two gradients and optimizer (activations beside it)",
        ]


def cost_of(
    recipe: Recipe,
    method: Method,
    streams: Mapping[str, Mixture],
    parameters: int | None,
) -> Cost:
    """Count steps, passes, parameters and memory of a run."""
    training = recipe.training
    steps, _ = training.length(len(streams["forget"]))
    micro = training.micro_batch_size or training.batch_size
    sizes = [(method.forget, training.batch_size)]
    if method.retain is not None:
        sizes.append((method.retain, training.retain_batch_size or training.batch_size))
    passes = sum(-(-size // micro) * len(loss.needs.sequences) for loss, size in sizes)
    state = 4 if training.optimizer == "adamw" else 2
    return Cost(
        steps=steps,
        forget_rows=len(streams["forget"]),
        retain_rows=len(streams.get("retain", ())),
        forwards_per_step=passes,
        evaluations=2 + (recipe.retrained is not None),
        parameters=parameters,
        memory_gib=None if parameters is None else 4 * parameters * (1 + state) / GIB,
        steps_at_least=training.steps is None and recipe.template.format == "text",
    )
