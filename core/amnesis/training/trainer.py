"""One optimizer step with two streams, inside transformers' Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback

from amnesis.contracts.stream import StreamLoss, risk
from amnesis.data.batches import Batch
from amnesis.data.sampling import StepBatches, StepPlan
from amnesis.distributed.processes import added_over_ranks, sum_over_ranks, world
from amnesis.errors import NonFiniteError, RecipeError
from amnesis.models.fingerprint import fingerprint
from amnesis.scoring.forward import score, score_beside_itself
from amnesis.scoring.head import ChunkedHead
from amnesis.scoring.reference import Reference, draws_at_random
from amnesis.scoring.scores import Needs, Scores
from amnesis.training import checkpoints
from amnesis.training.probing import ProbeRunner, run_view
from amnesis.training.report import RISKS, StepLog, at_hand, products_of
from amnesis.training.stopping import StopAtLimits
from amnesis.training.streams import Streams

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.trainer_callback import TrainerCallback

    from amnesis.data.examples import ExampleSet
    from amnesis.discovery.resolve import Method
    from amnesis.training.settings import TrainingSettings
    from amnesis.training.stopping import Limit


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
        output: Path,
        keeps_checkpoints: bool,
        device: str | None,
        log: StepLog,
        limits: Mapping[str, Limit],
        evaluate_every: int | None,
        callbacks: Sequence[TrainerCallback],
        watched_retain: ExampleSet | None,
    ) -> None:
        """Prepare to make the steps of ``plan``.

        ``references`` makes the frozen scores of each stream once the model is on its device;
        ``watched_retain`` is the retain set that probes see, also where no stream trains on it.
        """
        if (getattr(model, "_tp_size", None) or 1) > 1:
            raise RecipeError(
                "tensor parallelism is not supported: use FSDP2 "
                "(accelerate launch --use_fsdp --fsdp_version 2)"
            )
        self._method, self._plan, self._log, self._settings = method, plan, log, settings
        self._staging: Path | None = None
        self._two_streams: Streams | None = None
        self._head = ChunkedHead(model)
        super().__init__(
            model=model,
            args=settings.arguments(plan.steps, output, plan.seed, device),
            processing_class=tokenizer,
        )
        self.remove_callback(PrinterCallback)
        with self.accelerator.autocast():  # θ° as the student sees it at the first step
            self._references = references()
        self._fingerprint = fingerprint(model) if keeps_checkpoints else ""
        self._is_its_own_reference = not draws_at_random(model)  # before it has moved
        reference = self._references.get("forget")
        view = run_view(plan, watched_retain, method.forget, reference, self.args.device)
        self._probes = ProbeRunner(method.probes, log, view, limits)
        self._stopping = StopAtLimits(limits, log, method.probes, evaluate_every)
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
        step, method = self.state.global_step, self._method
        forget, retain = method.forget.at(step), method.retain and method.retain.at(step)
        available = at_hand(self._probes.products(step), forget, retain)
        # What is seen now and then, and the end of the run, must not fall between logs.
        self.control.should_log = self._probes.wants_log(step) or step + 1 == self.state.max_steps
        self._streams().watch(
            statistics=retain is not None and (self.control.should_log or self._logs(step + 1)),
            products=tuple(dict.fromkeys(pair for pair, _ in available.values())),
        )
        risks = {gradient for pair, _ in available.values() for gradient in pair}
        losses = {f"{forget.name}/loss": self._run_stream("forget", forget, inputs.forget, risks)}
        weights = forget.scheduled_weights()
        if retain is not None:
            loss = self._run_stream("retain", retain, inputs.retain, risks)
            losses[f"{retain.name}/loss"] = loss
            weights |= retain.scheduled_weights()
        report = self._streams().combine()
        self._log.begin(losses | weights | report.values())
        self._probes.observe(step, self.model, products_of(available, report))
        return torch.tensor(sum(losses.values()), device=self.args.device)

    def _run_stream(
        self, stream: str, loss: StreamLoss, batches: Sequence[Batch], risks: Collection[str]
    ) -> float:
        """Run one stream's micro-batches; return its loss over the whole step and all ranks."""
        streams = self._streams()
        wants_risk = RISKS[stream] in risks
        needs = loss.needs | Needs(logps=True) if wants_risk else loss.needs
        counts = added_over_ranks(loss.counts(batches))
        reference = self._references.get(stream)
        total = 0.0
        for index, batch in enumerate(batches):
            batch = batch.to(self.args.device)
            with self.compute_loss_context_manager():
                scores = self._score(batch, needs, reference)
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
                with streams.collect(RISKS[stream]):
                    self._backward(risk(scores, counts), retain_graph=True)
            last = index == len(batches) - 1
            with streams.retain(last=last) if stream == "retain" else streams.forget():
                self._backward(share)
            total += share.item()
        return added_over_ranks({"loss": total})["loss"]

    def _score(self, batch: Batch, needs: Needs, reference: Reference | None) -> Scores:
        if reference is None:
            return score(self.model, batch, needs, head=self._head)
        if self.state.global_step == 0 and self._is_its_own_reference:
            return score_beside_itself(self.model, batch, needs, self._head)
        with self.accelerator.autocast():  # which the model's own forward brings along
            frozen = reference.scores(batch, needs)
        return score(self.model, batch, needs, frozen, self._head)

    def _streams(self) -> Streams:
        """Return the run's streams, made at its first step: FSDP has sharded the model by then."""
        if self._two_streams is None:
            scaler = self.accelerator.scaler
            self._two_streams = Streams(
                self.model.named_parameters(),
                self._method.combiner,
                sum_over_ranks if world()[1] > 1 else None,
                None if scaler is None else lambda: float(scaler.get_scale()),
            )
            if world()[1] > 1:
                self._head.decide()  # a forward pass, which a sharded model runs on all ranks
        return self._two_streams

    def _logs(self, step: int) -> bool:
        """Whether the Trainer logs after a step, counted from 1."""
        return step == 1 or step % self._settings.log_every == 0

    def _backward(self, loss: Tensor, **options: Any) -> None:
        if self.is_fsdp_enabled:
            loss = loss * world()[1]  # it averages over ranks; shares of one mean are to be added
        scaler = self.accelerator.scaler
        (loss if scaler is None else scaler.scale(loss)).backward(**options)

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

    def notes(self) -> list[str]:
        """Return what is to be said of the run beside its numbers."""
        return [*self._log.notes, *([self._head.note] if self._head.note else [])]

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
                self._run_state().write(staging / f"checkpoint-{step}")

    def _run_state(self) -> checkpoints.RunState:
        return checkpoints.RunState(
            trajectory=self._log.trajectory,
            notes=self._log.notes,
            probes=self._probes.state_dict(),
            limits_passed=self._stopping.counts,
            data=self._plan.digest,
            model=self._fingerprint,
            processes=world()[1],
            memory=self._streams().state_dict(),
        )

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint, exactly as if the run had not been cut off.

        Raises:
            DataError: the checkpoint is of a run with other rows, model or processes.
        """
        folder = checkpoints.trainer_folder(checkpoint)
        state = checkpoints.RunState.read(folder)
        state.check(checkpoint, self._plan.digest, self._fingerprint)
        self._log.trajectory, self._log.notes = state.trajectory, state.notes
        self._probes.load_state_dict(state.probes)
        self._stopping.counts = state.limits_passed
        if state.memory:
            self._streams().load_state_dict(state.memory)
        self.train(resume_from_checkpoint=str(folder))

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the Trainer's estimate knows one forward pass over one batch."""
        return 0


def _only(items: list[StepBatches]) -> StepBatches:
    return items[0]
