"""One optimizer step with two streams, inside transformers' Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME
from transformers.trainer_callback import PrinterCallback

from amnesis.contracts.stream import StreamLoss
from amnesis.contracts.term import StatefulTerm
from amnesis.data.sampling import StepBatches, StepPlan
from amnesis.distributed.checkpoints import read_memory, read_model, read_optimizer, write_shards
from amnesis.distributed.processes import world
from amnesis.distributed.shards import reshard
from amnesis.distributed.sums import RankSum
from amnesis.errors import NonFiniteError, RecipeError
from amnesis.models.fingerprint import fingerprint
from amnesis.scoring.forward import losses_left_out
from amnesis.scoring.head import ChunkedHead
from amnesis.scoring.reference import Reference, draws_at_random, shard_references
from amnesis.training import checkpoints
from amnesis.training.optimizers.bfloat16 import over_bfloat16
from amnesis.training.passes import Passes, Stream, StreamMeans
from amnesis.training.probing import ProbeRunner, run_view
from amnesis.training.report import RISKS, StepLog, at_hand, products_of
from amnesis.training.stopping import StopAtLimits
from amnesis.training.streams import Streams

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.trainer_callback import TrainerCallback

    from amnesis.data.examples import ExampleSet
    from amnesis.discovery.resolve import Method
    from amnesis.training.pacing.goal import Goal, GoalReport, Limit
    from amnesis.training.settings import TrainingSettings


class TwoStreamTrainer(Trainer):  # type: ignore[misc]  # transformers is not typed
    """A Trainer whose batch is a whole optimizer step: every micro-batch of both streams.

    Counting, reducing and combining over the step happen in :meth:`training_step`; clipping, the
    optimizer, the schedule and checkpoints remain the Trainer's.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        method: Method,
        plan: StepPlan,
        settings: TrainingSettings,
        *,
        references: Callable[[], Mapping[str, Reference]],
        is_its_own_reference: bool,
        output: Path,
        keeps_checkpoints: bool,
        device: str | None,
        log: StepLog,
        limits: Mapping[str, Limit],
        goals: Mapping[str, Goal],
        evaluate_every: int | None,
        callbacks: Sequence[TrainerCallback],
        watched_retain: ExampleSet | None,
    ) -> None:
        """Prepare to make the steps of ``plan``.

        ``references`` makes the frozen scores of each stream once the model is on its device, and
        ``is_its_own_reference`` says that they are of the model as it is now;
        ``watched_retain`` is the retain set that probes see, also where no stream trains on it.
        """
        if (getattr(model, "_tp_size", None) or 1) > 1:
            raise RecipeError(
                "tensor parallelism is not supported: use FSDP2 "
                "(accelerate launch --use_fsdp --fsdp_version 2)"
            )
        self._method, self._plan, self._log, self._settings = method, plan, log, settings
        self._cap = plan.steps
        self._staging: Path | None = None
        self._two_streams: Streams | None = None
        self._stream_passes: Passes | None = None
        self._losses: dict[Stream, StreamLoss] = {"forget": method.forget}
        if method.retain is not None:
            self._losses["retain"] = method.retain
        self._head = ChunkedHead(model)
        super().__init__(
            model=model,
            args=settings.arguments(plan.steps, output, plan.seed, device),
            processing_class=tokenizer,
            optimizer_cls_and_kwargs=settings.own_optimizer(),
        )
        self.remove_callback(PrinterCallback)
        with self.accelerator.autocast():  # θ° as the student sees it at the first step
            self._references = references()
        reshard(model)
        self._fingerprint = fingerprint(model) if keeps_checkpoints else ""
        # Before it has moved.
        self._is_its_own_reference = is_its_own_reference and not draws_at_random(model)
        reference = self._references.get("forget")
        view = run_view(plan, watched_retain, method.forget, reference, self.args.device)
        self._probes = ProbeRunner(method.probes, log, view, {**limits, **goals})
        self._stopping = StopAtLimits(limits, log, method.probes, evaluate_every, goals)
        # What is seen of a step is logged before a limit on it is looked at.
        for callback in (self._probes, *callbacks, self._stopping):
            self.add_callback(callback)

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

    def create_optimizer(self, model: Any = None) -> Any:
        """Return the optimizer, which updates weights in bfloat16 as the settings say."""
        if self.optimizer is None:
            reshard(self.model)
            self.optimizer: Any = over_bfloat16(
                super().create_optimizer(model),
                self.model,
                self._settings.bfloat16_weights,
                seed=self._plan.seed,
                update=lambda: int(self.state.global_step),
                shards=world()[1] if self.is_fsdp_enabled else 1,
                log=self._log,
                logged=lambda: self.control.should_log or self._logs(self.state.global_step + 1),
            )
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader[StepBatches]:
        """Return the plan, one optimizer step at a time, already sharded by rank."""
        return DataLoader(self._plan, batch_size=1, collate_fn=_only, shuffle=False)  # type: ignore[arg-type]

    def _get_num_items_in_batch(self, batch_samples: Any, device: Any) -> None:
        """Not the Trainer's to count: each term says what its mean runs over."""

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """Not counted: a batch holds two streams."""

    def training_step(
        self, model: nn.Module, inputs: StepBatches, num_items_in_batch: Any = None
    ) -> Tensor:
        """Run both streams' backward passes and leave their combination in ``p.grad``."""
        model.train()
        reshard(model)  # after an evaluation along the run
        step = self.state.global_step
        if step == 0:
            self._begin_states(inputs)
        losses = {name: loss.at(step) for name, loss in self._losses.items()}
        available = at_hand(
            self._probes.products(step),
            losses["forget"],
            losses.get("retain"),
            at_theta=self._method.perturbation is None,
        )
        # What is seen now and then, and the end of the run, must not fall between logs.
        self.control.should_log = self._probes.wants_log(step) or step + 1 == self.state.max_steps
        self._streams().watch(
            statistics="retain" in losses and self._reads_statistics(step + 1),
            products=tuple(dict.fromkeys(pair for pair, _ in available.values())),
        )
        risks = {gradient for pair, _ in available.values() for gradient in pair}
        values: dict[str, float] = {}
        for stream, loss in losses.items():
            means = self._run_stream(stream, loss, inputs, risks)
            values |= {f"{loss.name}/loss": means.loss} | loss.logged_weights()
            values |= loss.logged_terms(means.terms)
            advanced = self._losses[stream].advanced(step, means.terms, means.measured)
            self._losses[stream] = advanced
        report = self._streams().combine()
        self._log.begin(values | report.values())
        self._probes.observe(step, self.model, products_of(available, report))
        total = sum(values[f"{loss.name}/loss"] for loss in losses.values())
        return torch.tensor(total, device=self.args.device)

    def _run_stream(
        self, stream: Stream, loss: StreamLoss, inputs: StepBatches, risks: Collection[str]
    ) -> StreamMeans:
        """Run one stream's passes of a step."""
        try:
            return self._passes().run(
                stream,
                loss,
                inputs.of(stream),
                self._references.get(stream),
                step=self.state.global_step,
                is_its_own_reference=self.state.global_step == 0 and self._is_its_own_reference,
                wants_risk=RISKS[stream] in risks,
            )
        except NonFiniteError as error:
            raise self._not_finite(str(error)) from None

    def _begin_states(self, inputs: StepBatches) -> None:
        """Measure what terms with a state begin with, on the first step's batches."""
        for stream, loss in self._losses.items():
            if any(isinstance(t.term, StatefulTerm) for t in loss.terms):
                measured = self._passes().measure(
                    loss, inputs.of(stream), self._references.get(stream)
                )
                self._losses[stream] = loss.measured_first(measured)

    def _passes(self) -> Passes:
        if self._stream_passes is None:
            self._stream_passes = Passes(
                self.model,
                self._streams(),
                self._head,
                self._method.perturbation,
                seed=self._plan.seed,
                device=self.args.device,
                computing=self.compute_loss_context_manager,
                autocast=self.accelerator.autocast,
                backward=self._backward,
            )
        return self._stream_passes

    def _streams(self) -> Streams:
        """Return the run's streams, made at its first step: FSDP has sharded the model by then."""
        if self._two_streams is None:
            reshard(self.model)
            scaler = self.accelerator.scaler
            self._two_streams = Streams(
                self.model.named_parameters(),
                self._method.combiner,
                RankSum if world()[1] > 1 else None,
                None if scaler is None else lambda: float(scaler.get_scale()),
            )
            if world()[1] > 1:
                shard_references(self._references.values(), self.model)
                self._head.decide()  # a forward pass, which a sharded model runs on all ranks
                reshard(self.model)
        return self._two_streams

    def _logs(self, step: int) -> bool:
        """Whether the Trainer logs after a step, counted from 1."""
        return step == 1 or step % self._settings.log_every == 0

    def _reads_statistics(self, step: int) -> bool:
        """Whether the two gradients are looked at in a step, counted from 1."""
        every = self._settings.log_every * self._settings.statistics_every
        return step in (1, self.state.max_steps) or step % every == 0

    def _backward(self, loss: Tensor, *, retain_graph: bool = False) -> None:
        if self._streams().sharded:
            loss = loss * world()[1]  # it averages over ranks; shares of one mean are to be added
        scaler = self.accelerator.scaler
        (loss if scaler is None else scaler.scale(loss)).backward(retain_graph=retain_graph)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        """Return the norm before clipping, refusing to step along a gradient that is not finite."""
        norm = float(super()._get_grad_norm(model, grad_norm=grad_norm))
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            norms = {
                stream: self._log.values.get(f"gradients/{stream}_norm", 0.0)
                for stream in ("forget", "retain")
            }
            whose = [s for s, n in norms.items() if not math.isfinite(n)] or ["combined"]
            raise self._not_finite(f"the {' and the '.join(whose)} gradient's norm is {norm}")
        return norm

    def _not_finite(self, what: str) -> NonFiniteError:
        newest, _ = checkpoints.latest(Path(self.args.output_dir))
        kept = f"; the checkpoint of step {checkpoints.step_of(newest)} is kept" if newest else ""
        return NonFiniteError(
            f"step {self.state.global_step}: {what}{kept}; lower training.learning_rate, set "
            f"training.max_grad_norm, or look at the terms' hyper-parameters"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the streams' own values in place of the Trainer's one loss."""
        if "learning_rate" not in logs:
            return  # the Trainer's closing summary of a loss that two streams do not have
        values = self._log.close(
            self.state.global_step,
            gradient_norm=float(logs.get("grad_norm", 0.0)),
            learning_rate=float(logs["learning_rate"]),
        )
        super().log(values, start_time)

    def goal(self) -> GoalReport | None:
        """Return how the run that has ended did by its goal; None without one."""
        return self._stopping.report(self.state.global_step, self._cap)

    def notes(self) -> list[str]:
        """Return what is to be said of the run beside its numbers."""
        head = [self._head.note] if self._head.note else []
        return [*self._log.notes, *losses_left_out(self.model), *head]

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or self.args.output_dir)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint that is whole or not there."""
        step, keep = self.state.global_step, self._settings.keep_checkpoints
        with checkpoints.staged(Path(self.args.output_dir), step, keep) as staging:
            self._staging = staging
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = None
            if self.args.should_save:
                self._run_state().write(staging / f"checkpoint-{step}", self._trajectory_file)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the model into a checkpoint; one that is sharded is written with its optimizer."""
        if not self._streams().sharded:
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self._streams().sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        memory = self._streams().state_dict()
        write_shards(Path(output_dir), self.model, self._bare_optimizer(), memory)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        if self._streams().sharded:
            read_model(Path(resume_from_checkpoint), self.model)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self._streams().sharded:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        read_optimizer(Path(checkpoint), self.model, self._bare_optimizer())
        schedule = torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True)
        self.lr_scheduler.load_state_dict(schedule)

    def _bare_optimizer(self) -> Optimizer:
        """Return the optimizer without accelerate's wrapper."""
        optimizer: Optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        return optimizer

    def _run_state(self) -> checkpoints.RunState:
        return checkpoints.RunState(
            trajectory=self._log.trajectory,
            notes=self._log.notes,
            probes=self._probes.state_dict(),
            limits_passed=self._stopping.counts,
            data=self._plan.digest,
            model=self._fingerprint,
            choices=self._choices(),
            processes=world()[1],
            memory={} if self._streams().sharded else self._streams().state_dict(),
            terms={stream: loss.states() for stream, loss in self._losses.items()},
        )

    @cached_property
    def _trajectory_file(self) -> checkpoints.TrajectoryFile:
        return checkpoints.TrajectoryFile(Path(self.args.output_dir) / checkpoints.TRAJECTORY)

    def _choices(self) -> dict[str, str]:
        return checkpoints.choices_of(self._method, self._settings, self._plan.seed)

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint, exactly as if the run had not been cut off.

        Raises:
            DataError: the checkpoint is of a run with other rows, another model, method or
                settings, or on another number of processes.
        """
        folder = checkpoints.trainer_folder(checkpoint)
        state = checkpoints.RunState.read(folder, self._trajectory_file)
        sharded = self._streams().sharded
        state.check(
            checkpoint, self._plan.digest, self._fingerprint, self._choices(), sharded=sharded
        )
        self._log.trajectory, self._log.notes = state.trajectory, state.notes
        if state.processes != world()[1]:
            self._log.note(
                f"resumed at step {checkpoints.step_of(checkpoint)} on {world()[1]} processes "
                f"instead of {state.processes}: sums over them round otherwise"
            )
        self._probes.load_state_dict(state.probes)
        self._stopping.counts.update(state.limits_passed)
        for stream, loss in self._losses.items():
            self._losses[stream] = loss.restored(state.terms[stream])
        memory = read_memory(folder, self.model) if sharded else state.memory
        if memory:
            self._streams().load_state_dict(memory)
        if self._stopping.ended:  # it was cut off after its last step
            self._plan = replace(self._plan, steps=checkpoints.step_of(checkpoint))
            self.args.max_steps = self._plan.steps
        self.train(resume_from_checkpoint=str(folder))

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer's estimate knows one forward pass over one batch."""
        return 0


def _only(items: list[StepBatches]) -> StepBatches:
    return items[0]
