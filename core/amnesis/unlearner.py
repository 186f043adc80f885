"""The run's engine: transformers' Trainer with two gradient streams per optimizer step."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from amnesis.contracts import StepContext
from amnesis.data import Batch, ExampleSet, Row, Template, encode_rows, pad_token_id
from amnesis.distributed import added_over_ranks, sum_over_ranks, world
from amnesis.errors import NonFiniteError, RecipeError
from amnesis.forward import score
from amnesis.loss import StreamLoss, risk
from amnesis.plan import StepBatches, StepPlan
from amnesis.reference import (
    AdapterOff,
    Cached,
    FrozenCopy,
    Reference,
    cached,
    logit_bytes,
)
from amnesis.resolve import Choice, combiner_of, probes_of, stream_of
from amnesis.scores import Needs
from amnesis.streams import StreamReport, Streams
from amnesis.training import TrainingSettings

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.contracts import Product
    from amnesis.registry import Registry

Values = dict[str, float]

# Reference logits are cached up to this many bytes of main memory; beyond, a copy is run.
LOGITS_IN_MEMORY = 1 << 30


@dataclass(frozen=True)
class FitResult:
    """What a run went through: the logged values of each step, and what was said beside them."""

    steps: int
    trajectory: list[Values]
    data: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Unlearner:
    """Makes ``model`` forget, by any objective, regularizer and combiner.

    Each is a name, a mapping ``{"name": ..., hyper-parameters}``, a component, or (terms only) a
    list of those with ``weight``. Without a regularizer there is no retain stream.

        Unlearner(model, tokenizer, objective="wga", regularizer="kl", combiner="sago").fit(
            forget, retain
        )
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        objective: Choice,
        regularizer: Choice | None = None,
        combiner: Choice | None = None,
        probes: Sequence[Choice] = (),
        *,
        training: TrainingSettings | Mapping[str, Any] | None = None,
        template: Template | None = None,
        seed: int = 0,
        reference_cache: Path | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        registry: Registry | None = None,
        device: str | None = None,
        output: Path | None = None,
    ) -> None:
        """Resolve every name at once; nothing is computed yet.

        Raises:
            AmnesisError: a name or a hyper-parameter is wrong, or a combiner has no retain stream.
        """
        self.model, self.tokenizer = model, tokenizer
        self.forget_loss = stream_of("forget", "objective", objective, registry)
        self.retain_loss = (
            None
            if regularizer is None
            else stream_of("retain", "regularizer", regularizer, registry)
        )
        if self.retain_loss is None and combiner is not None:
            raise RecipeError("a combiner needs a retain stream: give a regularizer, such as 'kl'")
        self.combiner = (
            None if self.retain_loss is None else combiner_of(combiner or "sum", registry)
        )
        self.probes = probes_of(probes, registry)
        self.training = (
            training
            if isinstance(training, TrainingSettings)
            else TrainingSettings(**(training or {}))
        )
        self.template = template or Template()
        self.seed, self.device, self.output = seed, device, output
        self.reference_cache, self.callbacks = reference_cache, tuple(callbacks)

    def fit(
        self,
        forget: Iterable[Row],
        retain: Iterable[Row] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> FitResult:
        """Unlearn ``forget`` while keeping ``retain``; rows have the template's fields.

        The model is changed in place.

        Raises:
            DataError: a row lacks a field, or a set is empty.
            NonFiniteError: a loss or gradient is no longer a finite number.
        """
        if self.retain_loss is not None and retain is None:
            raise RecipeError("a regularizer needs retain rows: fit(forget, retain)")
        forget_set = self._encode("forget", forget, self.forget_loss)
        retain_set = (
            None
            if self.retain_loss is None or retain is None
            else self._encode("retain", retain, self.retain_loss)
        )
        steps, draws = self.training.length(len(forget_set))
        with tempfile.TemporaryDirectory() as scratch:
            trainer = TwoStreamTrainer(self, steps, self.output or Path(scratch), self.device)
            rank, ranks = world()
            trainer.plan = StepPlan(
                forget_set,
                retain_set,
                steps,
                self.training.batch_size,
                self.training.micro_batch_size or self.training.batch_size,
                pad_token_id(self.tokenizer),
                self.training.retain_batch_size,
                draws,
                self.seed,
                rank,
                ranks,
            )
            trainer.references = self._references(forget_set, retain_set, progress)
            trainer.train()
        data = {s.name: s.summary() for s in (forget_set, retain_set) if s is not None}
        return FitResult(steps, trainer.trajectory, data, trainer.notes)

    def _encode(self, name: str, rows: Iterable[Row], loss: StreamLoss) -> ExampleSet:
        limit = getattr(self.model.config, "max_position_embeddings", None)
        template = self.template
        if limit and limit < template.max_length:
            template = template.model_copy(update={"max_length": limit})
        return encode_rows(rows, self.tokenizer, template, name=name)

    def _references(
        self,
        forget: ExampleSet,
        retain: ExampleSet | None,
        progress: Callable[[str, int, int], None] | None,
    ) -> dict[str, Reference]:
        references: dict[str, Reference] = {}
        for examples, loss in ((forget, self.forget_loss), (retain, self.retain_loss)):
            if examples is None or loss is None or not loss.needs.reference:
                continue
            if self._cacheable(examples, loss.needs):
                references[loss.name] = cached(
                    self.model,
                    examples.examples,
                    loss.needs,
                    pad_token_id=pad_token_id(self.tokenizer),
                    cache=self.reference_cache,
                    progress=progress,
                )
            else:
                known = [r for r in references.values() if not isinstance(r, Cached)]
                references[loss.name] = known[0] if known else self._whole_reference()
        return references

    def _cacheable(self, examples: ExampleSet, needs: Needs) -> bool:
        if needs.ref_hidden:
            return False
        if not needs.ref_logits:
            return True
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        size = logit_bytes(examples.examples, needs, vocabulary, self.model.dtype.itemsize)
        return size <= LOGITS_IN_MEMORY

    def _whole_reference(self) -> Reference:
        if hasattr(self.model, "disable_adapter"):
            return AdapterOff(self.model)
        return FrozenCopy(self.model)


class TwoStreamTrainer(Trainer):  # type: ignore[misc]  # transformers is not typed
    """A Trainer whose batch is a whole optimizer step: every micro-batch of both streams.

    Counting, reducing and combining over the step happen in :meth:`training_step`; clipping, the
    optimizer, the schedule and checkpoints remain the Trainer's.
    """

    def __init__(self, run: Unlearner, steps: int, output: Path, device: str | None) -> None:
        """Prepare a Trainer for ``run``; ``plan`` and ``references`` are set before training."""
        self.run = run
        self.plan: StepPlan
        self.references: dict[str, Reference] = {}
        self.trajectory: list[Values] = []
        self.notes: list[str] = []
        self._states = [probe.initial_state() for probe in run.probes]
        self._failed: set[int] = set()
        self._streams: Streams | None = None
        self._reduce = sum_over_ranks if world()[1] > 1 else None
        self._values: Values = {}
        super().__init__(
            model=run.model,
            args=run.training.arguments(steps, output, run.seed, device),
            processing_class=run.tokenizer,
            callbacks=list(run.callbacks),
        )
        self.remove_callback(PrinterCallback)

    def create_accelerator_and_postprocess(self) -> None:
        """Keep accelerate from wrapping the model in DDP: the two streams are reduced by us."""
        super().create_accelerator_and_postprocess()
        if not self.is_fsdp_enabled and not self.is_deepspeed_enabled:
            prepare = self.accelerator.prepare_model
            self.accelerator.prepare_model = lambda model, **options: prepare(
                model, **{**options, "evaluation_mode": True}
            )

    def get_train_dataloader(self) -> DataLoader[StepBatches]:
        """Give the plan, one optimizer step at a time, already sharded by rank."""
        return DataLoader(self.plan, batch_size=1, collate_fn=_only, shuffle=False)  # type: ignore[arg-type]

    def _get_num_items_in_batch(self, batch_samples: Any, device: Any) -> None:
        """Not the Trainer's to count: each term says what its mean runs over."""

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """Not counted: a batch holds two streams."""

    def training_step(
        self, model: nn.Module, inputs: StepBatches, num_items_in_batch: Any = None
    ) -> Tensor:
        """Run both streams' backward passes and leave their combination in ``p.grad``."""
        model.train()
        run, step = self.run, self.state.global_step
        if self._streams is None:
            self._streams = Streams(model.named_parameters(), run.combiner, self._reduce)
        due = [i for i, p in enumerate(run.probes) if p.due(step) and i not in self._failed]
        asked = tuple(dict.fromkeys(pair for i in due for pair in run.probes[i].products))
        available = _at_hand(asked, run.forget_loss, run.retain_loss)
        logged = step % run.training.log_every == 0 or step + 1 == self.state.max_steps
        self._streams.watch(
            statistics=logged and run.combiner is not None,
            products=tuple(dict.fromkeys(pair for pair, _ in available.values())),
        )
        risks = {gradient for pair, _ in available.values() for gradient in pair}
        losses = {"forget/loss": self._run_stream(run.forget_loss, inputs.forget, risks)}
        if run.retain_loss is not None:
            losses["retain/loss"] = self._run_stream(run.retain_loss, inputs.retain, risks)
        report = self._streams.combine()
        self._values = losses | _described(report)
        self._observe(due, step, model, _products(available, report))
        return torch.tensor(sum(losses.values()), device=self.args.device)

    def _run_stream(
        self, loss: StreamLoss, batches: Sequence[Batch], gradients: Collection[str]
    ) -> float:
        """Run one stream's micro-batches; give its loss over the whole step and all ranks."""
        assert self._streams is not None  # noqa: S101  # training_step made them
        risk_name = f"{loss.name}_risk"
        wants_risk = risk_name in gradients
        needs = loss.needs | Needs(logps=True) if wants_risk else loss.needs
        counts = added_over_ranks(loss.counts(batches))
        reference = self.references.get(loss.name)
        total = 0.0
        for index, batch in enumerate(batches):
            batch = batch.to(self.args.device)
            known = reference.scores(batch, loss.needs) if reference is not None else None
            with self.compute_loss_context_manager():
                scores = score(self.model, batch, needs, known)
                share = loss(scores, counts)
            if wants_risk:
                with self._streams.collect(risk_name):
                    self._backward(risk(scores, counts), retain_graph=True)
            last = index == len(batches) - 1
            with (
                self._streams.retain(last=last)
                if loss.name == "retain"
                else self._streams.collect(loss.name)
            ):
                self._backward(share)
            total += share.item()
        return added_over_ranks({"loss": total})["loss"]

    def _backward(self, loss: Tensor, **options: Any) -> None:
        scaler = self.accelerator.scaler
        (loss if scaler is None else scaler.scale(loss)).backward(**options)

    def _observe(
        self,
        due: Sequence[int],
        step: int,
        model: nn.Module,
        products: Mapping[Product, Mapping[str, float]],
    ) -> None:
        for index in due:
            probe = self.run.probes[index]
            context = StepContext(step, model, dict(self._values), products)
            try:
                seen, self._states[index] = probe.report(context, self._states[index])
                self._values |= seen
            except Exception as error:  # an observer may fail without stopping the run
                self._failed.add(index)
                self.notes.append(
                    f"probe {probe.label} failed at step {step} and is off from there: "
                    f"{type(error).__name__}: {error}"
                )

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        """Give the norm before clipping, refusing to step along a gradient that is not finite."""
        norm = float(super()._get_grad_norm(model, grad_norm=grad_norm))
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            raise NonFiniteError(
                f"step {self.state.global_step}: the combined gradient's norm is {norm}; "
                f"lower the learning rate, or look at the terms' hyper-parameters"
            )
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the streams' own values in place of the Trainer's one loss."""
        if "learning_rate" not in logs:
            return  # the Trainer's closing summary of a loss that two streams do not have
        values = {
            **self._values,
            "gradient_norm": float(logs.get("grad_norm", 0.0)),
            "learning_rate": float(logs["learning_rate"]),
        }
        self.trajectory.append({"step": self.state.global_step, **values})
        super().log(values, start_time)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer's estimate knows one forward pass over one batch."""
        return 0


def _only(items: list[StepBatches]) -> StepBatches:
    return items[0]


Available = dict["Product", tuple["Product", float]]


def _at_hand(asked: Sequence[Product], forget: StreamLoss, retain: StreamLoss | None) -> Available:
    """Map each product asked for to one that can be had, and a factor.

    Where a stream's loss is c·R its gradient is c·∇R, so the risk needs no backward of its own.
    """
    streams = {loss.name: loss for loss in (forget, retain) if loss is not None}
    available: Available = {}
    for pair in asked:
        factor, names = 1.0, []
        for gradient in pair:
            stream, _, is_risk = gradient.partition("_")
            if stream not in streams:
                break
            multiple = streams[stream].risk_multiple if is_risk else None
            factor /= multiple or 1.0
            names.append(stream if multiple else gradient)
        else:
            available[pair] = ((names[0], names[1]), factor)  # type: ignore[assignment]
    return available


def _products(available: Available, report: StreamReport) -> dict[Product, dict[str, float]]:
    return {
        pair: {name: factor * value for name, value in report.products[had].items()}
        for pair, (had, factor) in available.items()
    }


def _described(report: StreamReport) -> Values:
    named = {
        "gradients/forget_norm": report.forget_norm,
        "gradients/retain_norm": report.retain_norm,
        "gradients/cosine": report.cosine,
        "gradients/conflict_share": report.conflict_share,
        "gradients/zero_forget_share": report.zero_forget_share,
    }
    return {name: value for name, value in named.items() if value is not None}
