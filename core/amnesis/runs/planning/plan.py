"""A forecast of the memory that a run takes, and the cheapest setting with which it fits."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from amnesis.data.sampling import StepPlan
from amnesis.distributed.processes import alone, world
from amnesis.models.devices import memory_of
from amnesis.models.loading import check_model
from amnesis.models.trainable import LoraSettings
from amnesis.progress import ProgressCallback
from amnesis.runs.cost import in_words
from amnesis.runs.planning.rehearsal import STREAM, WEIGHTS, Scene, StreamRows, rehearse

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from amnesis.data.examples import ExampleSet
    from amnesis.discovery.resolve import Method
    from amnesis.runs.planning.counting import Phase
    from amnesis.runs.preflight import Prepared
    from amnesis.runs.recipe import Recipe

GIB = 1 << 30
# A model of more layers is gone through with some of them, and the others are like these.
DEEPEST, DEPTH = 16, 6
FIRST_STEPS = 50  # whose batches are looked at; of a longer run the longest examples are
FITTING = 0.92  # of a device's memory: the rest goes to libraries and to gaps between tensors


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The memory of one process, in bytes.

    Attributes:
        weights: of the model.
        held: that and all else that is there between steps: what optimizer and combiner keep,
            copies, and what is cached.
        peak: the most, in a step.
        part: in which part of it.
    """

    weights: int
    held: int
    peak: int
    part: str


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a run takes of a device's memory.

    Attributes:
        device: the device.
        room: its memory in bytes, or None where that is unknown.
        forecast: what the run takes of it; None where the model's code cannot be gone through
            without values.
        way: what to set so that it fits; empty where it does, or nothing helps.
        cheaper: the forecast with that; of the smallest way where nothing helps.
        processes: of how many processes each takes so much.
    """

    device: str
    room: int | None
    forecast: Forecast | None
    way: tuple[str, ...] = ()
    cheaper: Forecast | None = None
    processes: int = 1

    @property
    def fits(self) -> bool:
        """Whether the memory suffices, as far as is known."""
        return self.forecast is None or self.room is None or _fits(self.forecast, self.room)

    def lines(self) -> list[str]:
        """Return it in words."""
        found = self.forecast
        if found is None:
            return ["memory of a step: unknown, for the model's code reads values; see --measure"]
        has = "" if self.room is None else f", of {in_words(self.room)} on {self.device}"
        each = f" in each of {self.processes} processes" if self.processes > 1 else ""
        lines = [
            f"about {in_words(found.peak)} at the highest{each}, in {found.part}{has}: "
            f"{in_words(found.weights)} weights, "
            f"{in_words(found.held - found.weights)} kept by optimizer, combiner and reference, "
            f"{in_words(found.peak - found.held)} gradients and activations"
        ]
        if self.fits:
            return lines
        if self.cheaper is None or not self.way:
            cheaper = self.cheaper
            least = "" if cheaper is None else f": {in_words(cheaper.peak)} with all of it"
            return [*lines, f"that does not fit, nor with any setting known here{least}"]
        return [
            *lines,
            f"that does not fit; the cheapest that does ({in_words(self.cheaper.peak)}): "
            f"{' '.join(self.way)}",
        ]


def plan_memory(
    recipe: Recipe,
    prepared: Prepared,
    *,
    trust_remote_code: bool = False,
    progress: ProgressCallback | None = None,
) -> MemoryPlan | None:
    """Return what a run takes of its device's memory; None for a procedure, which has no such step.

    The step is gone through on tensors without values, in seconds; where it does not fit, so are
    the settings that take less, until one does.
    """
    if prepared.method.procedure is not None:
        return None
    recipe = recipe.model_copy(
        update={"training": recipe.training.suited_to(prepared.method.combiner)}
    )
    rank, ranks = world()
    sharded = ranks > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")
    scene = Scene(
        recipe=recipe,
        method=prepared.method,
        config=check_model(recipe.model, trust_remote_code),
        rows=rows_of(recipe, prepared.method, prepared.examples, rank, ranks),
        device=prepared.device,
        ranks=ranks,
        sharded=sharded,
    )
    room = memory_of(prepared.device)
    with alone():
        if progress is not None:
            progress("going through a step", 0, 1)
        forecast = forecast_of(scene)
        plan = MemoryPlan(device=prepared.device, room=room, forecast=forecast, processes=ranks)
        if plan.fits or room is None or forecast is None:
            return plan
        return replace(plan, **_advice(scene, room, progress))


def rows_of(
    recipe: Recipe,
    method: Method,
    examples: Mapping[str, ExampleSet],
    rank: int = 0,
    ranks: int = 1,
) -> dict[Any, StreamRows]:
    """Return the heaviest micro-batch of each stream: of a short run, among those that it makes."""
    training = recipe.training
    sets = {"forget": examples["forget"]}
    if method.retain is not None:
        sets["retain"] = examples["retain"]
    steps, draws = training.length(len(sets["forget"]), has_goal=recipe.until is not None)
    plan = StepPlan(
        sets["forget"],
        sets.get("retain"),
        steps,
        training.batch_size,
        training.micro_batch_size or training.batch_size,
        0,
        training.retain_batch_size,
        draws,
        recipe.seed,
        rank,
        ranks,
    )
    made = [plan[step] for step in range(min(steps, FIRST_STEPS))]
    rows: dict[Any, StreamRows] = {}
    for stream, whole in sets.items():
        batches = [batch for step in made for batch in step.of(stream)]
        passes = max((len(step.of(stream)) for step in made), default=0)
        if not batches:
            batches = [StepPlan(whole, None, 1, 1, 1, 0)[0].forget[0]]
        size = max(len(batch.keys) for batch in batches)
        if steps > FIRST_STEPS:
            longest = sorted(whole.examples, key=lambda e: e.length)[-size:]
        else:
            heaviest = max(batches, key=lambda b: (b.input_ids.numel(), int(b.mask.sum())))
            by_key = {e.sequences["answer"].key: e for e in whole.examples}
            longest = [by_key[key] for key in heaviest.keys]
        rows[stream] = StreamRows(examples=longest, passes=max(passes, 1), whole=whole)
    return rows


def forecast_of(scene: Scene) -> Forecast | None:
    """Return the memory that a step takes; None where it cannot be gone through without values."""
    try:
        phases = _phases(scene)
    except Exception:  # code that reads values raises whatever it does with what is no value
        return None
    weights = phases.pop(WEIGHTS).peak
    part = max(phases, key=lambda name: phases[name].peak)
    held = phases[STREAM.format("forget")].start  # once the optimizer has its state
    return Forecast(weights=weights, held=held, peak=phases[part].peak, part=part)


def _phases(scene: Scene) -> dict[str, Phase]:
    """Return the parts of a step; of a deep model, as some of its layers say."""
    depths = _depths(scene)
    if depths is None:
        return rehearse(scene)
    layers = scene.config.get_text_config().num_hidden_layers
    few, more = (
        rehearse(replace(scene, config=_with_layers(scene.config, depth))) for depth in depths
    )

    def at_depth(a: int, b: int) -> int:
        depth: int = layers
        return b + (b - a) * (depth - depths[1]) // (depths[1] - depths[0])

    return {
        name: type(few[name])(
            start=at_depth(few[name].start, more[name].start),
            peak=at_depth(few[name].peak, more[name].peak),
        )
        for name in few
    }


def _depths(scene: Scene) -> tuple[int, int] | None:
    """Return two depths, between which a layer more always takes as much; None: go through all."""
    method, text = scene.method, scene.config.get_text_config()
    layers = getattr(text, "num_hidden_layers", None)
    losses = [loss for loss in (method.forget, method.retain) if loss is not None]
    reads_blocks = any(loss.needs.hidden or loss.needs.ref_hidden for loss in losses)
    is_uneven = reads_blocks or method.perturbation or scene.recipe.trainable
    if layers is None or is_uneven:
        return None
    kinds = list(getattr(text, "layer_types", None) or [None])
    period = next(p for p in range(1, len(kinds) + 1) if kinds[p:] == kinds[:-p])
    depth = -(-DEPTH // period) * period
    return (depth, 2 * depth) if layers > max(DEEPEST, 2 * depth) else None


def _with_layers(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    shallow = copy.deepcopy(config)
    text = shallow.get_text_config()
    deep = text.num_hidden_layers
    for name, value in text.to_dict().items():
        if isinstance(value, list) and len(value) == deep:
            setattr(text, name, getattr(text, name)[:layers])  # a value for each layer
    text.num_hidden_layers = layers
    return shallow


def _fits(forecast: Forecast, room: int) -> bool:
    return forecast.peak <= FITTING * room


def _advice(scene: Scene, room: int, progress: ProgressCallback | None) -> dict[str, Any]:
    """Return the first way that fits, in the order of what each costs, with its forecast."""
    smallest: Forecast | None = None
    ways = list(_ways(scene))
    for number, (keys, other) in enumerate(ways):
        if progress is not None:
            progress("looking for a setting that fits", number, len(ways))
        one = _with_micro_batch(other, 1)
        least = forecast_of(one)
        if least is None:
            continue
        if smallest is None or least.peak < smallest.peak:
            smallest = least
        if not _fits(least, room):
            continue
        count, largest = _largest(other, least, room)
        if count < max(len(rows.examples) for rows in scene.rows.values()):
            keys = (*keys, f"training.micro_batch_size={count}")
        return {"way": keys, "cheaper": largest}
    return {"cheaper": smallest}


def _largest(scene: Scene, least: Forecast, room: int) -> tuple[int, Forecast]:
    """Return the largest micro-batch that fits, halved again and again, and its forecast.

    ``least`` is the forecast of one example at a time, which does.
    """
    count = max(len(rows.examples) for rows in scene.rows.values())
    while count > 1:
        forecast = forecast_of(_with_micro_batch(scene, count))
        if forecast is not None and _fits(forecast, room):
            return count, forecast
        count //= 2
    return 1, least


def _ways(scene: Scene) -> Iterator[tuple[tuple[str, ...], Scene]]:
    """Yield what may be set, the cheapest first: each leaves results as they are but the last."""
    checkpointing = "training.gradient_checkpointing=true"
    for keys, other in _bases(scene):
        yield keys, other
        if not scene.recipe.training.gradient_checkpointing:
            training = other.recipe.training.model_copy(update={"gradient_checkpointing": True})
            recipe = other.recipe.model_copy(update={"training": training})
            yield (*keys, checkpointing), replace(other, recipe=recipe)


def _bases(scene: Scene) -> Iterator[tuple[tuple[str, ...], Scene]]:
    recipe = scene.recipe
    yield (), scene
    device = torch.device(scene.device)
    count = torch.accelerator.device_count() if device.type != "cpu" else 1
    if count > 1 and scene.ranks == 1:
        launch = f"accelerate launch --use_fsdp --fsdp_version 2 --num_processes {count} -m"
        yield (launch,), replace(scene, ranks=count, sharded=True)
    if recipe.trainable is not None or recipe.model is None:
        return
    keys: tuple[str, ...] = ()
    if recipe.lora is None:
        keys = ("lora.r=16",)
        recipe = recipe.model_copy(update={"lora": LoraSettings()})
        yield keys, replace(scene, recipe=recipe)
    if recipe.model.quantize is None and device.type == "cuda" and find_spec("bitsandbytes"):
        model = recipe.model.model_copy(update={"quantize": "nf4"})
        recipe = recipe.model_copy(update={"model": model})
        yield (*keys, "model.quantize=nf4"), replace(scene, recipe=recipe)


def _with_micro_batch(scene: Scene, size: int) -> Scene:
    """Return a scene whose passes go over the longest examples alone."""
    rows: dict[Any, StreamRows] = {}
    for stream, one in scene.rows.items():
        longest: Sequence[Any] = sorted(one.examples, key=lambda e: e.length)[-size:]
        passes = one.passes * len(one.examples) // len(longest)
        rows[stream] = replace(one, examples=longest, passes=passes)
    return replace(scene, rows=rows)
