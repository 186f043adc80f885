"""What a run will cost, as far as it can be known before a weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from amnesis.data.examples import Mixture

if TYPE_CHECKING:
    from amnesis.contracts.stream import StreamLoss
    from amnesis.runs.recipe import Recipe

GIB = 1 << 30


@dataclass(frozen=True)
class Plan:
    """What a run will cost, as far as it can be known beforehand.

    Texts that become chunks are counted as rows, so epochs of them take ``steps`` at the least.
    """

    steps: int
    forget_rows: int
    retain_rows: int
    forwards_per_step: int
    judgements: int
    parameters: int | None
    memory_gib: float | None
    steps_at_least: bool = False

    def lines(self) -> list[str]:
        """Say it in words."""
        size = "" if self.parameters is None else f"{self.parameters / 1e6:,.1f} M parameters, "
        memory = "unknown" if self.memory_gib is None else f"about {self.memory_gib:.1f} GiB"
        least = "at least " if self.steps_at_least else ""
        return [
            f"{least}{self.steps} steps, "
            f"{self.forget_rows} forget and {self.retain_rows} retain rows",
            f"{self.forwards_per_step} forward passes a step, {self.judgements} judgements",
            f"{size}{memory} for weights, two gradients and optimizer (activations beside it)",
        ]


def plan_of(
    recipe: Recipe,
    forget: StreamLoss,
    retain: StreamLoss | None,
    streams: Mapping[str, Mixture],
    parameters: int | None,
) -> Plan:
    """Count steps, passes, parameters and memory of a run."""
    training = recipe.training
    steps, _ = training.length(len(streams["forget"]))
    micro = training.micro_batch_size or training.batch_size
    sizes = [(forget, training.batch_size)]
    if retain is not None:
        sizes.append((retain, training.retain_batch_size or training.batch_size))
    passes = sum(-(-size // micro) * len(loss.needs.sequences) for loss, size in sizes)
    state = 4 if training.optimizer == "adamw" else 2
    return Plan(
        steps,
        len(streams["forget"]),
        len(streams.get("retain", ())),
        passes,
        2 + (recipe.retrained is not None),
        parameters,
        None if parameters is None else 4 * parameters * (1 + state) / GIB,
        training.steps is None and recipe.template.format == "text",
    )
