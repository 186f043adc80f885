"""What a run will cost, as far as it can be known before a weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amnesis.data.examples import Mixture
from amnesis.models.trainable import matching, with_lora
from amnesis.runs.evaluations import attacks_by_name
from amnesis.training.pacing.choice import RANGE_STEPS

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from amnesis.contracts.benchmark import Benchmark
    from amnesis.discovery.resolve import Method
    from amnesis.runs.recipe import Recipe

GIB = 1 << 30
# How often a run is evaluated for its goal, in steps, where it does not say: often enough to end
# near it, and seldom enough to cost less than the steps.
GOAL_EVERY = 5


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """How large a model is, and what of it trains.

    Attributes:
        parameters: the number of the model's parameters, without an adapter's.
        weights: the bytes of all weights.
        trained: the number of parameters that train.
        dtype: the type that these are held in.
    """

    parameters: int
    weights: int
    trained: int
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Steps, passes and memory that a run will take.

    ``steps_at_least`` says that ``steps`` is a lower bound: plain texts are counted as rows, and
    become more examples where they are cut into chunks. ``notes`` are further lines, such as
    what each attack takes; ``remarks`` say what is slow, what is cut, and what is seldom meant.
    """

    steps: int
    forget_rows: int
    retain_rows: int
    forwards_per_step: int
    evaluations: int
    parameters: int | None
    memory_gib: float | None
    steps_at_least: bool = False
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def lines(self, memory: Sequence[str] = ()) -> list[str]:
        """Return it in words, a line for each kind of cost.

        ``memory`` says what a step takes in all, where that was looked at.
        """
        size = "" if self.parameters is None else f"{self.parameters / 1e6:,.1f} M parameters, "
        known = "unknown"
        if self.memory_gib is not None:
            known = f"about {in_words(self.memory_gib * GIB)}"
        held = f"{known} for weights, two gradients and optimizer (activations beside it)"
        first, *rest = memory or [held]
        least = "at least " if self.steps_at_least else ""
        return [
            f"{least}{self.steps} steps, "
            f"{self.forget_rows} forget and {self.retain_rows} retain rows",
            f"{self.forwards_per_step} forward passes a step, {self.evaluations} evaluations",
            *self.remarks,
            f"{size}{first}",
            *rest,
            *self.notes,
        ]


def cost_of(
    recipe: Recipe,
    method: Method,
    streams: Mapping[str, Mixture],
    size: ModelSize | None,
    device: str,
    benchmark: Benchmark,
) -> Cost:
    """Count steps, passes, parameters and memory of a run, and ask its attacks what they take."""
    training = recipe.training
    has_goal = recipe.until is not None
    steps, _ = training.length(len(streams["forget"]), has_goal=has_goal)
    micro = training.micro_batch_size or training.batch_size
    sizes = [(method.forget, training.batch_size)]
    if method.retain is not None:
        sizes.append((method.retain, training.retain_batch_size or training.batch_size))
    passes = [-(-size // micro) * len(loss.needs.sequences) for loss, size in sizes]
    if method.perturbation is not None:
        passes[0] *= method.perturbation.passes
    if method.procedure is not None:
        steps *= method.procedure.fits
    memory, notes = (None, ()) if size is None else _memory(size, recipe, method, device)
    return Cost(
        steps=steps,
        forget_rows=len(streams["forget"]),
        retain_rows=len(streams.get("retain", ())),
        forwards_per_step=sum(passes),
        evaluations=2 + (recipe.retrained is not None),
        parameters=None if size is None else size.parameters,
        memory_gib=None if memory is None else memory / GIB,
        steps_at_least=training.steps is None and recipe.template.format == "text",
        remarks=(
            *_evaluation_lines(recipe, method, benchmark),
            *_size_lines(recipe, method, streams, steps),
        ),
        notes=(
            *method.notes(),
            *notes,
            *_pacing_lines(recipe, method, size),
            *_attack_lines(method, benchmark, recipe),
        ),
    )


def _evaluation_lines(recipe: Recipe, method: Method, benchmark: Benchmark) -> list[str]:
    """Return what the benchmark says that an evaluation takes."""
    settings = recipe.evaluate.model_copy(update={"metrics": method.metrics})
    line = benchmark.cost(settings)
    return [line] if line else []


def _size_lines(
    recipe: Recipe, method: Method, streams: Mapping[str, Mixture], steps: int
) -> list[str]:
    """Return what of a run's sizes is allowed, yet seldom meant."""
    training, lines = recipe.training, []
    if method.procedure is not None:
        return []
    sizes = {"forget": training.batch_size}
    if method.retain is not None:
        sizes["retain"] = training.retain_batch_size or training.batch_size
    for name, size in sizes.items():
        rows = len(streams[name])
        if size > rows and recipe.template.format != "text":
            lines.append(
                f"a step draws {size} {name} rows of {rows}: some of them twice; lower "
                f"training.{'' if name == 'forget' else 'retain_'}batch_size to draw each once"
            )
    if training.warmup_steps >= steps:
        lines.append(
            f"the learning rate never reaches its height: {training.warmup_steps} warm-up steps, "
            f"of {steps} in all (training.warmup_steps)"
        )
    if recipe.evaluate.every is not None and recipe.evaluate.every > steps:
        lines.append(f"evaluate.every {recipe.evaluate.every}: never, in {steps} steps")
    return lines


def _pacing_lines(recipe: Recipe, method: Method, size: ModelSize | None) -> list[str]:
    """Return what finding a learning rate and looking for the goal will take, a line each."""
    lines = []
    if recipe.training.learning_rate == "auto" and method.procedure is None:
        copied = "" if size is None else f" ({in_words(_held(size))} in main memory)"
        lines.append(
            f"learning rate: found before the run, in at most {RANGE_STEPS} steps at rising rates, "
            f"with a copy of what trains{copied}"
        )
    if recipe.until is not None:
        every = recipe.evaluate.every or GOAL_EVERY
        goals = " and ".join(recipe.until)
        lines.append(
            f"the steps are the most that it makes: it ends where {goals} is reached, which a "
            f"metric shows in an evaluation after every {every} steps"
        )
    return lines


def in_words(count: float) -> str:
    """Return a number of bytes in GiB, or in MiB where a GiB would be too coarse."""
    size = count / GIB
    return f"{size:.1f} GiB" if size >= 0.95 else f"{count / (1 << 20):.0f} MiB"


def _held(size: ModelSize) -> int:
    return size.trained * size.dtype.itemsize


def _attack_lines(method: Method, benchmark: Benchmark, recipe: Recipe) -> list[str]:
    """Return what each attack says of its cost, a line each."""
    lines = {
        name: attack.cost(benchmark, recipe.evaluate)
        for name, attack in attacks_by_name(method.attacks).items()
    }
    return [f"attack {name}: {line}" for name, line in lines.items() if line]


def size_of(recipe: Recipe, config: PretrainedConfig, skeleton: Any) -> ModelSize:
    """Return the size of the model that a recipe trains.

    ``skeleton`` is the model on the meta device; it may be given an adapter.
    """
    import torch

    dtype = getattr(torch, recipe.model.dtype, None) or config.dtype or torch.float32
    parameters: int = sum(p.numel() for p in skeleton.parameters())
    weights = parameters * dtype.itemsize
    if recipe.model.quantize is not None:
        weights = parameters // (2 if recipe.model.quantize == "nf4" else 1)
    trained = parameters
    if recipe.trainable is not None:
        names = matching(skeleton, recipe.trainable)
        trained = sum(p.numel() for name, p in skeleton.named_parameters() if name in names)
    if recipe.lora is not None:
        adapted = with_lora(skeleton, recipe.lora)
        trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        dtype = torch.float32  # as peft holds the adapters of any base
        weights += trained * dtype.itemsize
    return ModelSize(parameters=parameters, weights=weights, trained=trained, dtype=dtype)


def _memory(
    size: ModelSize, recipe: Recipe, method: Method, device: str
) -> tuple[int, tuple[str, ...]]:
    """Return the bytes of weights, two gradients and optimizer, and notes on bfloat16 weights.

    The scale that a combiner divides by, in float32, counts as the optimizer's would.
    """
    import torch

    from amnesis.training.optimizers.bfloat16 import ROUNDING, update_bytes, way_that_fits

    training = recipe.training
    moments = 2 if training.optimizer == "adamw" else int(training.momentum > 0)
    held = size.weights + 2 * size.trained * size.dtype.itemsize
    if method.combiner is not None and method.combiner.preconditions:
        held += size.trained * torch.float32.itemsize
    if size.dtype is not torch.bfloat16:
        return held + size.trained * moments * size.dtype.itemsize, ()
    master = size.trained * update_bytes("master", moments)
    way = training.bfloat16_weights
    if way == "auto":
        way = way_that_fits(held + master, device)
    kept = size.trained * update_bytes(way, moments)
    notes = [f"bfloat16 weights, updated {_WAYS[way]}: {in_words(kept)} of it"]
    if way == "stochastic":
        notes[0] += f" ({in_words(master)} through float32 master weights)"
    rate = training.learning_rate
    if way == "plain" and moments and rate != "auto" and rate < ROUNDING:
        notes.append(
            f"plain loses AdamW's step of about {rate:g} on every weight above "
            f"{rate / ROUNDING:.2g} (norms are about 1, others often 0.02); say "
            f" training.bfloat16_weights: master or stochastic"
        )
    return held + kept, tuple(notes)


_WAYS = {
    "master": "through float32 master weights",
    "stochastic": "by stochastic rounding",
    "plain": "by rounding to nearest",
}
