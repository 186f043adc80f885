"""One optimizer step with two streams, inside transformers' Trainer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback

from amnesis.contracts import StepContext
from amnesis.contracts.stream import StreamLoss, risk
from amnesis.data.batches import Batch
from amnesis.data.sampling import StepBatches, StepPlan
from amnesis.distributed.processes import added_over_ranks, sum_over_ranks, world
from amnesis.errors import DataError, NonFiniteError, RecipeError
from amnesis.scoring.forward import score
from amnesis.scoring.head import ChunkedHead
from amnesis.scoring.reference import Reference
from amnesis.scoring.scores import Needs
from amnesis.training import checkpoints
from amnesis.training.callbacks import JudgeAlong
from amnesis.training.probing import UpdateWatch
from amnesis.training.report import Values, at_hand, described, products_of
from amnesis.training.stopping import Stopping, StopWhenAsked
from amnesis.training.streams import Streams

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.trainer_callback import TrainerCallback

    from amnesis.contracts import Combiner, Probe, Product
    from amnesis.contracts.probe import RunView
    from amnesis.training.settings import TrainingSettings
    from amnesis.training.stopping import Limit

_PROGRESS = "amnesis.json"  # what of a checkpoint is ours: trajectory, notes, probes' states
_MEMORY = "combiner.safetensors"


class Run(Protocol):
    """What a Trainer is to know of a run; an Unlearner is one."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    forget_loss: StreamLoss
    retain_loss: StreamLoss | None
    combiner: Combiner | None
    probes: tuple[Probe, ...]
    training: TrainingSettings
    seed: int
    callbacks: tuple[TrainerCallback, ...]
    stop_when: dict[str, Limit]
    judge: Callable[[PreTrainedModel], Mapping[str, float]] | None
    judge_every: int | None


class TwoStreamTrainer(Trainer):  # type: ignore[misc]  # transformers is not typed
    """A Trainer whose batch is a whole optimizer step: every micro-batch of both streams.

    Counting, reducing and combining over the step happen in :meth:`training_step`; clipping, the
    optimizer, the schedule and checkpoints remain the Trainer's.
    """

    def __init__(self, run: Run, steps: int, output: Path, device: str | None) -> None:
        """Prepare a Trainer for ``run``; ``plan`` and ``references`` are set before training."""
        if (getattr(run.model, "_tp_size", None) or 1) > 1:
            raise RecipeError(
                "tensor parallelism is not supported: use FSDP2 "
                "(accelerate launch --use_fsdp --fsdp_version 2)"
            )
        self.run = run
        self.plan: StepPlan
        self.references: dict[str, Reference] = {}
        self.trajectory: list[Values] = []
        self.notes: list[str] = []
        self.interruption = StopWhenAsked()
        self.view: RunView | None = None
        every = run.judge_every if run.judge is not None else None
        self._stopping = Stopping(run.stop_when, lambda: self._values, self._note, every)
        self._staging: Path | None = None
        self._states = [probe.initial_state() for probe in run.probes]
        self._failed: set[int] = set()
        self._streams: Streams | None = None
        self._head = ChunkedHead(run.model)
        self._reduce = sum_over_ranks if world()[1] > 1 else None
        self._values: Values = {}
        super().__init__(
            model=run.model,
            args=run.training.arguments(steps, output, run.seed, device),
            processing_class=run.tokenizer,
            callbacks=[
                UpdateWatch(
                    run.probes, self._due, self._context, self._of_step, self._probe_failed
                ),
                *self._judge_along(),
                self._stopping,
                *run.callbacks,
                self.interruption,
            ],
        )
        self.remove_callback(PrinterCallback)

    def create_accelerator_and_postprocess(self) -> None:
        """Keep accelerate from wrapping the model in DDP: the two streams are reduced by us."""
        super().create_accelerator_and_postprocess()
        if self.is_deepspeed_enabled:
            raise RecipeError(
                "DeepSpeed merges the two streams' gradients: use FSDP2 instead "
                "(accelerate launch --use_fsdp --fsdp_version 2)"
            )
        if self.is_fsdp_enabled and self.accelerator.state.fsdp_plugin.fsdp_version != 2:
            raise RecipeError("FSDP 1 flattens parameters: say --fsdp_version 2")
        if not self.is_fsdp_enabled:
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
        forget, retain = run.forget_loss.at(step), run.retain_loss and run.retain_loss.at(step)
        streams = self._two_streams()
        due = self._due()
        asked = tuple(dict.fromkeys(pair for i in due for pair in run.probes[i].products))
        available = at_hand(asked, forget, retain)
        # What is seen now and then, and the end of the run, must not fall between logs.
        self.control.should_log = (
            any(run.probes[i].every > 1 for i in due) or step + 1 == self.state.max_steps
        )
        logged = self.control.should_log or self._logs(step + 1)
        streams.watch(
            statistics=logged and run.combiner is not None,
            products=tuple(dict.fromkeys(pair for pair, _ in available.values())),
        )
        risks = {gradient for pair, _ in available.values() for gradient in pair}
        losses = {"forget/loss": self._run_stream(forget, inputs.forget, risks)}
        weights = forget.scheduled_weights()
        if retain is not None:
            losses["retain/loss"] = self._run_stream(retain, inputs.retain, risks)
            weights |= retain.scheduled_weights()
        report = streams.combine()
        self._values = losses | weights | described(report)
        self._observe(due, products_of(available, report))
        return torch.tensor(sum(losses.values()), device=self.args.device)

    def _run_stream(
        self, loss: StreamLoss, batches: Sequence[Batch], gradients: Collection[str]
    ) -> float:
        """Run one stream's micro-batches; give its loss over the whole step and all ranks."""
        streams = self._two_streams()
        risk_name = f"{loss.name}_risk"
        wants_risk = risk_name in gradients
        needs = loss.needs | Needs(logps=True) if wants_risk else loss.needs
        counts = added_over_ranks(loss.counts(batches))
        reference = self.references.get(loss.name)
        total = 0.0
        for index, batch in enumerate(batches):
            batch = batch.to(self.args.device)
            known = None
            if reference is not None:
                with self.accelerator.autocast():  # which the model's own forward brings along
                    known = reference.scores(batch, loss.needs)
            with self.compute_loss_context_manager():
                scores = score(self.model, batch, needs, known, self._head)
                try:
                    share = loss(scores, counts)
                except NonFiniteError as error:
                    raise self._not_finite(str(error)) from None
            if not share.requires_grad:
                raise RecipeError(
                    f"no parameter that trains has a part in the {loss.name} stream's loss: let "
                    f"others train (trainable, lora), or give it another term"
                )
            if wants_risk:
                with streams.collect(risk_name):
                    self._backward(risk(scores, counts), retain_graph=True)
            last = index == len(batches) - 1
            with streams.retain(last=last) if loss.name == "retain" else streams.collect(loss.name):
                self._backward(share)
            total += share.item()
        return added_over_ranks({"loss": total})["loss"]

    def _two_streams(self) -> Streams:
        if self._streams is None:
            scaler = self.accelerator.scaler
            self._streams = Streams(
                self.model.named_parameters(),
                self.run.combiner,
                self._reduce,
                None if scaler is None else lambda: float(scaler.get_scale()),
            )
            if world()[1] > 1:
                self._head.decide()  # a forward pass, which a sharded model runs on all ranks
        return self._streams

    def _logs(self, step: int) -> bool:
        """Whether the Trainer logs after a step, counted from 1."""
        return step == 1 or step % self.run.training.log_every == 0

    def _backward(self, loss: Tensor, **options: Any) -> None:
        if self.is_fsdp_enabled:
            loss = loss * world()[1]  # it averages over ranks; shares of one mean are to be added
        scaler = self.accelerator.scaler
        (loss if scaler is None else scaler.scale(loss)).backward(**options)

    def _observe(self, due: Sequence[int], products: Mapping[Product, Mapping[str, float]]) -> None:
        for index in due:
            try:
                context = self._context(products)
                seen, self._states[index] = self.run.probes[index].report(
                    context, self._states[index]
                )
                self._values |= seen
            except Exception as error:  # an observer may fail without stopping the run
                self._probe_failed(index, error)

    def _judge_along(self) -> list[JudgeAlong]:
        judge, every = self.run.judge, self.run.judge_every
        if judge is None or every is None:
            return []

        def judged() -> Mapping[str, float]:
            with _own_forward(self.model):
                return judge(self.model)

        return [JudgeAlong(every, judged, self._of_step)]

    def _due(self) -> list[int]:
        """Give the probes that observe this step."""
        step = self.state.global_step
        probes = enumerate(self.run.probes)
        return [i for i, p in probes if p.due(step) and i not in self._failed]

    def _context(
        self, products: Mapping[Product, Mapping[str, float]] | None = None
    ) -> StepContext:
        step, values = self.state.global_step, dict(self._values)
        return StepContext(step, self.model, values, products or {}, self.view)

    def _of_step(self) -> Values:
        return self._values

    def all_notes(self) -> list[str]:
        """Give what is to be said of the run beside its numbers."""
        return [*self.notes, *([self._head.note] if self._head.note else [])]

    def _note(self, text: str) -> None:
        self.notes.append(text)

    def _probe_failed(self, index: int, error: Exception) -> None:
        self._failed.add(index)
        self._note(
            f"{self.run.probes[index].label} failed at step {self.state.global_step} and is "
            f"off from there: {type(error).__name__}: {error}"
            + ("; a limit of stop_when on what it gives ends nothing" if self.run.stop_when else "")
        )

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        """Give the norm before clipping, refusing to step along a gradient that is not finite."""
        norm = float(super()._get_grad_norm(model, grad_norm=grad_norm))
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            norms = {
                stream: self._values.get(f"gradients/{stream}_norm", 0.0)
                for stream in ("forget", "retain")
            }
            whose = [s for s, n in norms.items() if not math.isfinite(n)] or ["combined"]
            raise self._not_finite(f"the {' and the '.join(whose)} gradient's norm is {norm}")
        return norm

    def _not_finite(self, what: str) -> NonFiniteError:
        found, _ = checkpoints.latest(Path(self.args.output_dir))
        kept = f"; the checkpoint of step {checkpoints.step_of(found)} is kept" if found else ""
        return NonFiniteError(
            f"step {self.state.global_step}: {what}{kept}; lower training.learning_rate, set "
            f"training.max_grad_norm, or look at the terms' hyper-parameters"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the streams' own values in place of the Trainer's one loss."""
        if "learning_rate" not in logs:
            return  # the Trainer's closing summary of a loss that two streams do not have
        values = {
            **self._values,
            "gradient_norm": float(logs.get("grad_norm", 0.0)),
            "learning_rate": float(logs["learning_rate"]),
        }
        # Only a step that a loss scaler skips comes here with numbers that are not finite.
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        self.trajectory.append({"step": self.state.global_step, **values})
        super().log(values, start_time)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint that is whole or not there."""
        step, keep = self.state.global_step, self.run.training.keep_checkpoints
        with checkpoints.staged(Path(self.args.output_dir), step, keep) as staging:
            self._staging = staging
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = None
            written = staging / f"checkpoint-{step}"
            if self.args.should_save:
                self._save_progress(written)

    def _save_progress(self, folder: Path) -> None:
        from safetensors.torch import save_file

        progress = {
            "trajectory": self.trajectory,
            "notes": self.notes,
            "probes": self._states,
            "failed": sorted(self._failed),
            "limits_passed": self._stopping.counts,
            "data": self.plan.digest,
        }
        (folder / _PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
        memory = self._two_streams().state_dict()
        if memory:
            save_file({name: t.contiguous() for name, t in memory.items()}, folder / _MEMORY)

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint, to the bit."""
        from safetensors.torch import load_file

        folder = checkpoint / f"checkpoint-{checkpoints.step_of(checkpoint)}"
        progress = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
        if progress["data"] != self.plan.digest:
            raise DataError(
                f"{checkpoint}: was written by a run over other rows: resume with the data (and "
                f"template) that it began with, or start anew in another folder"
            )
        self.trajectory, self.notes = progress["trajectory"], progress["notes"]
        self._states, self._failed = progress["probes"], set(progress["failed"])
        self._stopping.counts = progress["limits_passed"]
        if (folder / _MEMORY).is_file():
            self._two_streams().load_state_dict(load_file(folder / _MEMORY))
        self.train(resume_from_checkpoint=str(folder))

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer's estimate knows one forward pass over one batch."""
        return 0


@contextmanager
def _own_forward(model: Any) -> Iterator[None]:
    """Let the model compute without the run's autocast, as it is judged before and after."""
    original, wrapped = vars(model).get("_original_forward"), model.forward
    if original is None:
        yield
        return
    model.forward = original
    try:
        yield
    finally:
        model.forward = wrapped


def _only(items: list[StepBatches]) -> StepBatches:
    return items[0]
