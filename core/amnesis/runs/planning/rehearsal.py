"""A step of a run, gone through by its own code on tensors without values, to see what it holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from amnesis.contracts.term import StatefulTerm
from amnesis.data.batches import collate
from amnesis.data.examples import Example, ExampleSet
from amnesis.models.blocks import blocks_of
from amnesis.models.trainable import train_only, with_lora
from amnesis.runs.planning.counting import Counting, Phase
from amnesis.scoring.head import ChunkedHead
from amnesis.scoring.reference import (
    AdapterOff,
    FrozenCopy,
    Reference,
    cacheable,
    cached,
    row_count,
)
from amnesis.training.optimizers.bfloat16 import over_bfloat16
from amnesis.training.passes import Passes, Stream
from amnesis.training.report import RISKS, StepLog, at_hand
from amnesis.training.streams import Streams

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from amnesis.contracts.stream import StreamLoss
    from amnesis.discovery.resolve import Method
    from amnesis.runs.recipe import Recipe
    from amnesis.scoring.scores import Needs

WEIGHTS, STREAM, UPDATE = "the weights", "the {} stream", "the update"
# Bytes of a weight that is held in 8 or 4 bits, with the scale of each block of 64.
_QUANTIZED = {"int8": 1.0, "nf4": 0.5 + 4 / 64}


@dataclass(frozen=True, kw_only=True)
class StreamRows:
    """What a stream's heaviest pass goes over.

    Attributes:
        examples: those of one micro-batch.
        passes: how many micro-batches a step has.
        whole: the set that the stream draws from.
    """

    examples: Sequence[Example]
    passes: int
    whole: ExampleSet


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is rehearsed, and where.

    Attributes:
        recipe: the run, with the optimizer that suits its combiner.
        method: its components.
        config: the model's configuration.
        rows: what each stream's passes go over.
        device: where it computes.
        ranks: how many processes there are.
        sharded: whether these divide the model among them (FSDP2).
    """

    recipe: Recipe
    method: Method
    config: PretrainedConfig
    rows: Mapping[Stream, StreamRows]
    device: str
    ranks: int = 1
    sharded: bool = False


def rehearse(scene: Scene) -> dict[str, Phase]:
    """Return what one process holds in each part of a step, once the optimizer has its state.

    Raises:
        Exception: of any kind, where code asks for values that there are none of.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    from amnesis.models.random_states import random_states_restored

    skeleton = _skeleton(scene)
    with (
        random_states_restored(),
        FakeTensorMode(),
        Counting(scene.device) as counting,
        torch.device(scene.device),
    ):
        step = _Step(scene, skeleton, counting)
        for _ in range(2):  # what an optimizer or a combiner keeps is there from the first on
            step.make()
    if scene.sharded:  # a rank combines and updates its part alone
        update = counting.phases[UPDATE]
        counting.phases[UPDATE] = Phase(update.start, update.start + update.added // scene.ranks)
    phases: dict[str, Phase] = counting.phases
    return phases


class _Step:
    """The step of a run whose tensors have no values."""

    def __init__(self, scene: Scene, skeleton: Any, counting: Counting) -> None:
        self._scene, self._counting = scene, counting
        recipe, training = scene.recipe, scene.recipe.training
        self._autocast = partial(_autocast, scene.device, training.precision)
        self._model = model = _with_tensors(skeleton)
        if recipe.model.quantize is not None:
            counting.add(-_saved(model, recipe.model.quantize))
        self._divide(model.parameters())
        counting.phases[WEIGHTS] = Phase(0, counting.bytes)
        self._head = ChunkedHead(model)
        self._head.decide()
        self._losses: dict[Stream, StreamLoss] = {"forget": scene.method.forget}
        if scene.method.retain is not None:
            self._losses["retain"] = scene.method.retain
        _compute_in(model, training.precision, self._autocast)
        with self._autocast():
            self._references = dict(self._build_references())
        if recipe.training.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        # A process that is not alone, or has a loss scaler, combines when all gradients are there.
        waits = scene.ranks > 1 or training.precision == "float16"
        self._streams = Streams(
            model.named_parameters(), scene.method.combiner, None, (lambda: 1.0) if waits else None
        )
        self._trained = list(self._streams.parameters)
        self._passes = Passes(
            model,
            self._streams,
            self._head,
            scene.method.perturbation,
            seed=recipe.seed,
            device=torch.device(scene.device),
            computing=self._autocast,
            autocast=self._autocast,
            backward=lambda loss, retain_graph=False: loss.backward(retain_graph=retain_graph),
        )
        self._optimizer = _optimizer(scene, model, self._trained)
        for p in self._trained:
            p.register_post_accumulate_grad_hook(lambda p: self._divide([p.grad]))  # type: ignore[no-untyped-call]
        self._gathered = _gathered(model, scene.ranks) if scene.sharded else 0
        if training.learning_rate == "auto" and torch.device(scene.device).type == "cpu":
            counting.add(sum(p.nbytes for p in self._trained))  # put back after the range test

    def make(self) -> None:
        """Make a step, as the trainer does one whose gradients are looked at."""
        self._model.train()
        losses, products = (
            self._losses,
            tuple(product for probe in self._scene.method.probes for product in probe.products),
        )
        available = at_hand(
            products,
            losses["forget"],
            losses.get("retain"),
            at_theta=self._scene.method.perturbation is None,
        )
        pairs = tuple(dict.fromkeys(pair for pair, _ in available.values()))
        # On a CPU statistics are taken in small blocks, which need no memory, but are many.
        blocks = torch.device(self._scene.device).type == "cpu"
        if "retain" in losses and blocks:
            pairs = (*pairs, ("forget", "retain"))
        self._streams.watch(statistics="retain" in losses and not blocks, products=pairs)
        risks = {gradient for pair in pairs for gradient in pair}
        for stream in losses:
            with self._counting.phase(STREAM.format(stream)):
                self._counting.add(self._gathered)
                self._run(stream, wants_risk=RISKS[stream] in risks)
                self._counting.add(-self._gathered)
        with self._counting.phase(UPDATE):
            self._streams.combine()
            norm = self._scene.recipe.training.max_grad_norm
            torch.nn.utils.clip_grad_norm_(self._trained, norm or float("inf"))
            self._optimizer.step()
            self._model.zero_grad()
        self._divide(self._streams.state_dict().values())
        for state in self._optimizer.state.values():
            self._divide(value for value in state.values() if value.dim())

    def _run(self, stream: Stream, *, wants_risk: bool) -> None:
        loss, rows = self._losses[stream].at(1), self._scene.rows[stream]
        batches = [collate(rows.examples, 0)] * min(rows.passes, 2)
        reference = self._references.get(stream)
        if any(isinstance(t.term, StatefulTerm) for t in loss.terms):
            loss = loss.measured_first(self._passes.measure(loss, batches, reference))
        self._passes.run(
            stream,
            loss,
            batches,
            reference,
            step=1,
            is_its_own_reference=False,
            wants_risk=wants_risk,
        )

    def _build_references(self) -> Iterator[tuple[str, Reference]]:
        """Yield each stream's reference, of the kind that the run will have."""
        running: Reference | None = None
        model, recipe = self._model, self._scene.recipe
        for stream, loss in self._losses.items():
            rows = self._scene.rows[stream]
            if not loss.needs.reference:
                continue
            if cacheable(model, rows.whole, loss.needs):
                yield stream, cached(model, rows.examples, loss.needs, pad_token_id=0)
                if torch.device(self._scene.device).type == "cpu":
                    self._counting.add(self._cache(rows.whole.examples, loss.needs))
                continue
            if running is None and recipe.lora is not None:
                running = AdapterOff(model)
            elif running is None:
                running = FrozenCopy(model)
                if recipe.training.reference_copy == "int8":
                    self._counting.add(-_saved(model, "int8"))
            yield stream, running

    def _cache(self, examples: Sequence[Example], needs: Needs) -> int:
        """Return the bytes of the scores that are cached of these examples."""
        head = self._model.get_output_embeddings().weight
        width = head.shape[1] if self._head.decide() else head.shape[0]
        logits = width * self._model.dtype.itemsize if needs.ref_logits else 0
        entries = (4 + 8) * needs.ref_top  # a float32 and an int64
        return row_count(examples, needs) * (4 * needs.ref_logps + logits + entries)

    def _divide(self, tensors: Any) -> None:
        if self._scene.sharded:
            self._counting.divide(tensors, self._scene.ranks)


def dtype_of(recipe: Recipe, config: PretrainedConfig) -> torch.dtype:
    """Return the type that a recipe's weights are loaded in."""
    dtype: torch.dtype = getattr(torch, recipe.model.dtype, None) or config.dtype or torch.float32
    return dtype


def _skeleton(scene: Scene) -> Any:
    """Return the model as a run trains it, on the meta device: with an adapter, if any."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    recipe = scene.recipe
    options = {} if (way := recipe.model.attention) is None else {"attn_implementation": way}
    with torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(
            scene.config, dtype=dtype_of(recipe, scene.config), **options
        )
        model.tie_weights()
        if recipe.lora is not None:
            model = with_lora(model, recipe.lora, recipe.seed)
    if recipe.trainable is not None:
        train_only(model, recipe.trainable)
    return model


def _with_tensors(model: Any) -> Any:
    """Return a model from the meta device with tensors of the mode that is on, each made once."""
    made: dict[int, Tensor] = {}

    def new(old: Tensor) -> Tensor:
        tensor = torch.empty(old.shape, dtype=old.dtype)
        if isinstance(old, torch.nn.Parameter):
            tensor = torch.nn.Parameter(tensor, old.requires_grad)
        return made.setdefault(id(old), tensor)

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is not None:
                    tensors[name] = made.get(id(old)) if id(old) in made else new(old)
    model.register_forward_pre_hook(_without_idle_mask, with_kwargs=True)
    return model


def _without_idle_mask(_: Any, args: Any, named: dict[str, Any]) -> Any:
    """Leave out an attention mask that masks nothing.

    Models do so themselves, but not where tensors have no values.
    """
    mask = named.get("attention_mask")
    if mask is not None and bool(mask.all()):
        named = {**named, "attention_mask": None}
    return args, named


def _gathered(model: Any, ranks: int) -> int:
    """Return the bytes of what a rank gathers of the others' shards at a time.

    That is what is in no block, a block and the next one, and the gradient of one.
    """
    blocks = [sum(p.nbytes for p in block.parameters()) for block in blocks_of(model)]
    whole = sum(p.nbytes for p in model.parameters())
    rest: int = whole - sum(blocks)
    return rest * (ranks - 1) // ranks + 3 * max(blocks)


def _saved(model: Any, bits: str) -> int:
    """Return by how many bytes linear modules, except the head, are smaller when quantized."""
    head = model.get_output_embeddings()
    return sum(
        m.weight.nbytes - int(m.weight.numel() * _QUANTIZED[bits])
        for m in model.modules()
        if type(m) is torch.nn.Linear and m is not head
    )


@contextmanager
def _autocast(device: str, precision: str) -> Iterator[None]:
    kind = torch.device(device).type
    with torch.autocast(kind, getattr(torch, precision), enabled=precision != "float32"):
        yield


def _compute_in(model: Any, precision: str, autocast: Any) -> None:
    """Make the model compute in a precision and answer in float32, as accelerate does it."""
    from accelerate.utils import convert_outputs_to_fp32

    if precision == "float32":
        return
    plain = model.forward

    def forward(*args: Any, **named: Any) -> Any:
        with autocast():
            return plain(*args, **named)

    model.forward = convert_outputs_to_fp32(forward)


def _optimizer(scene: Scene, model: Any, trained: Sequence[Tensor]) -> Any:
    """Return the run's optimizer."""
    training = scene.recipe.training
    # torch takes all parameters at a time on an accelerator, and cannot see here that it is one.
    options: dict[str, Any] = {"foreach": torch.device(scene.device).type != "cpu"}
    own = training.own_optimizer()
    if own is not None:
        kind, options = own
    elif training.optimizer == "adamw":
        kind, options["betas"] = torch.optim.AdamW, training.betas
    else:
        kind = torch.optim.SGD
    return over_bfloat16(
        kind(trained, **{"lr": 1e-5, **options}),
        model,
        training.bfloat16_weights,
        seed=0,
        update=lambda: 0,
        shards=scene.ranks if scene.sharded else 1,
        log=StepLog(),
        logged=lambda: True,
    )
