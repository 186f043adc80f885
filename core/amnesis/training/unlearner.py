"""The Unlearner: a model, a tokenizer, and names; what a run is made of."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.config.validation import validated
from amnesis.contracts.stream import StreamLoss, further_texts
from amnesis.data.batches import pad_token_id
from amnesis.data.examples import ExampleSet, Mixture, encode_mixture, shared_examples
from amnesis.data.sampling import StepPlan
from amnesis.data.templates import AnyTemplate, Row, Template
from amnesis.discovery.resolve import Choice, combiner_of, probes_of, stream_of
from amnesis.distributed.processes import world
from amnesis.errors import Interrupted, RecipeError, ResourceError
from amnesis.models.devices import examined_device
from amnesis.models.trainable import adds_nothing
from amnesis.scoring.reference import AdapterOff, Cached, FrozenCopy, Reference, cached, logit_bytes
from amnesis.training import checkpoints
from amnesis.training.probing import run_view
from amnesis.training.report import Values
from amnesis.training.settings import TrainingSettings
from amnesis.training.stopping import limits_of
from amnesis.training.trainer import TwoStreamTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.trainer_callback import TrainerCallback

    from amnesis.discovery.registry import Registry
    from amnesis.scoring.scores import Needs

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
        template: AnyTemplate | None = None,
        seed: int = 0,
        reference_cache: Path | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        registry: Registry | None = None,
        device: str | None = None,
        output: Path | None = None,
        stop_when: Mapping[str, Any] | None = None,
        judge: Callable[[PreTrainedModel], Mapping[str, float]] | None = None,
        judge_every: int | None = None,
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
        self.stop_when = limits_of(stop_when)
        self.judge, self.judge_every = judge, judge_every
        self.training = (
            training
            if isinstance(training, TrainingSettings)
            else validated(TrainingSettings, training or {}, "training")
        )
        self.template = template or Template()
        self.seed, self.device, self.output = seed, device, output
        self.reference_cache, self.callbacks = reference_cache, tuple(callbacks)

    def fit(
        self,
        forget: Iterable[Row] | Mixture,
        retain: Iterable[Row] | Mixture | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        *,
        resume: bool = False,
    ) -> FitResult:
        """Unlearn ``forget`` while keeping ``retain``; rows have the template's fields.

        The model is changed in place. ``resume`` goes on from the last whole checkpoint in
        ``output``, to the bit, or starts where there is none.

        Raises:
            DataError: a row lacks a field, or a set is empty.
            NonFiniteError: a loss or gradient is no longer a finite number.
            ResourceError: memory does not suffice.
            Interrupted: Ctrl-C was pressed; a checkpoint was written if there is an ``output``.
        """
        if self.retain_loss is not None and retain is None:
            raise RecipeError("a regularizer needs retain rows: fit(forget, retain)")
        self._examine()
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
            with trainer.accelerator.autocast():  # θ° as the student sees it at the first step
                trainer.references = self._references(forget_set, retain_set, progress)
            shown = retain_set
            if shown is None and retain is not None and self.probes:
                shown = self._encode("retain", retain, StreamLoss("retain", ()))
            reference = trainer.references.get("forget")
            trainer.view = run_view(
                trainer.plan, self.forget_loss, shown, reference, trainer.args.device
            )
            self._train(trainer, resume)
        data = {s.name: s.summary() for s in (forget_set, retain_set) if s is not None}
        if retain_set is not None:
            data["retain"]["also_in_forget"] = shared_examples(retain_set, forget_set)
        return FitResult(trainer.state.global_step, trainer.trajectory, data, trainer.all_notes())

    def _examine(self) -> None:
        """See that what is to train can, on the device that is asked for."""
        import torch

        if self.device is not None:
            examined_device(self.device)
            index = torch.device(self.device).index
            if index and world()[1] == 1:
                raise RecipeError(
                    f"device {self.device!r}: one process trains on the first device; choose "
                    f"another by CUDA_VISIBLE_DEVICES={index}"
                )
        device = self.device or str(self.model.device)
        self.training.examine_on(device)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        if not trained:
            raise RecipeError("no parameter of the model trains: all of them are frozen")
        if self.training.optimizer == "adamw" and any(p.dtype is torch.float16 for p in trained):
            raise RecipeError(
                "float16 weights do not train with adamw (its ε is 0 in float16): load the model "
                "in float32 or bfloat16 (model.dtype) and compute in float16 (training.precision)"
            )

    def _train(self, trainer: TwoStreamTrainer, resume: bool) -> None:
        import torch

        found: Path | None = None
        notes: list[str] = []
        if resume and self.output is not None:
            found, notes = checkpoints.latest(self.output)
        try:
            if found is None:
                trainer.train()
            else:
                trainer.resume(found)
        except torch.OutOfMemoryError as error:
            size = self.training.micro_batch_size or self.training.batch_size
            raise ResourceError(
                f"step {trainer.state.global_step}: out of memory; lower "
                f"training.micro_batch_size (now {size}; results stay the same) or "
                f"template.max_length (now {self.template.max_length}), or set "
                f"training.gradient_checkpointing: true"
            ) from error
        finally:
            trainer.interruption.restore()
            if not trainer.is_fsdp_enabled:  # whoever runs the model next chooses the precision
                trainer.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        trainer.notes[:0] = notes
        if trainer.interruption.asked and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(
                f"interrupted after step {trainer.state.global_step} of {trainer.state.max_steps}"
            )

    def _encode(self, name: str, rows: Iterable[Row] | Mixture, loss: StreamLoss) -> ExampleSet:
        template = self.template.within(self.model.config)
        if isinstance(rows, str | Path):
            raise RecipeError(
                f"{name}: give rows, such as [{{'question': …, 'answer': …}}], not {str(rows)!r}; "
                f"amnesis.data.files.read_rows reads a file"
            )
        mixture = rows if isinstance(rows, Mixture) else Mixture(((1.0, list(rows)),))
        texts = further_texts([loss], [row for _, part in mixture.parts for row in part])
        return encode_mixture(mixture, self.tokenizer, template, name=name, answers=texts)

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
                    precision=self.training.precision,
                    progress=progress,
                )
            else:
                known = [r for r in references.values() if not isinstance(r, Cached)]
                references[loss.name] = known[0] if known else self._whole_reference()
        return references

    def _cacheable(self, examples: ExampleSet, needs: Needs) -> bool:
        if needs.ref_hidden:
            return False
        if not (needs.ref_logits or needs.ref_top):
            return True
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        size = logit_bytes(examples.examples, needs, vocabulary, self.model.dtype.itemsize)
        return size <= LOGITS_IN_MEMORY

    def _whole_reference(self) -> Reference:
        if hasattr(self.model, "disable_adapter") and adds_nothing(self.model):
            return AdapterOff(self.model)
        return FrozenCopy(self.model, in_8_bits=self.training.reference_copy == "int8")
