"""The Unlearner: a model, a tokenizer, and names; what a run is made of."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.config.validation import validated
from amnesis.contracts.stream import StreamLoss, check_columns, further_texts
from amnesis.data.batches import collate, pad_token_id
from amnesis.data.examples import ExampleSet, Mixture, encode_mixture, shared_examples
from amnesis.data.sampling import StepPlan
from amnesis.data.sources import Source, mixture_of
from amnesis.data.templates import AnyTemplate, Row, Template
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import Choice, Method
from amnesis.distributed.processes import check_same, from_first_rank, join, world
from amnesis.errors import Interrupted, RecipeError, ResourceError
from amnesis.models.devices import check_device
from amnesis.models.loading import ModelSettings, check_model, load_model, load_tokenizer
from amnesis.progress import ProgressCallback
from amnesis.scoring.forward import evaluating, score
from amnesis.scoring.head import ChunkedHead
from amnesis.scoring.reference import Reference, build_references
from amnesis.scoring.scores import Needs
from amnesis.training import checkpoints
from amnesis.training.callbacks import EvaluateAlong
from amnesis.training.pacing.choice import RangeTest
from amnesis.training.pacing.pace import Pace
from amnesis.training.pacing.range_test import (
    Risks,
    find_learning_rate,
    keep_range_test,
    recall_range_test,
    spread,
)
from amnesis.training.report import StepLog, Values, on_retain_risk
from amnesis.training.settings import TrainingSettings
from amnesis.training.stopping import StopWhenInterrupted, goals_of, limits_of
from amnesis.training.trainer import TwoStreamTrainer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.trainer_callback import TrainerCallback

    from amnesis.discovery.registry import Registry

# Rows, or where they are: what a recipe's forget and retain say.
Rows = (
    Iterable[Row | Source | str | Path]
    | Mapping[str, Any]
    | Mixture
    | ExampleSet
    | Source
    | str
    | Path
)


@dataclass(frozen=True)
class FitResult:
    """What a run went through: the logged values of each step, and what was said beside them.

    ``goal`` is a :class:`~.pacing.goal.GoalReport` and ``range_test`` a
    :class:`~.pacing.choice.RangeTest`, as plain values, of a run that has one.
    """

    steps: int
    trajectory: list[Values]
    data: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    goal: dict[str, Any] | None = None
    range_test: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What a fit works on.

    Attributes:
        streams: each stream's examples and loss.
        watched: the retain examples that probes see, also where no stream trains on them.
        plan: which examples this rank sees at each step.
        references: returns the frozen scores of each stream; the first call makes them.
        is_its_own_reference: whether these are of the model as it is now.
    """

    streams: Mapping[str, tuple[ExampleSet, StreamLoss]]
    watched: ExampleSet | None
    plan: StepPlan
    references: Callable[[], Mapping[str, Reference]]
    is_its_own_reference: bool


class Unlearner:
    """Makes ``model`` forget, by any objective, regularizer and combiner.

    ``model`` is a loaded model with its ``tokenizer``, or a folder or hub name to load both from.
    Objective, regularizer and combiner are each a name, a mapping ``{"name": ...,
    hyper-parameters}``, a component, or (terms only) a list of those with ``weight``. Without a
    regularizer there is no retain stream; without a combiner the two gradients are added.

        Unlearner(model, tokenizer, objective="wga", regularizer="kl", combiner="sago").fit(
            forget, retain
        )
    """

    def __init__(
        self,
        model: PreTrainedModel | ModelSettings | Mapping[str, Any] | str | Path,
        tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
        objective: Choice | None = None,
        regularizer: Choice | None = None,
        combiner: Choice | None = None,
        probes: Sequence[Choice] = (),
        *,
        robust: Choice | None = None,
        method: Method | None = None,
        training: TrainingSettings | Mapping[str, Any] | None = None,
        template: AnyTemplate | None = None,
        seed: int = 0,
        reference_cache: Path | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        registry: Registry | None = None,
        device: str | None = None,
        output: Path | None = None,
        stop_when: Mapping[str, Any] | None = None,
        until: Mapping[str, Any] | None = None,
        warns: bool = False,
        evaluate: Callable[[PreTrainedModel], Mapping[str, float]] | None = None,
        evaluate_every: int | None = None,
    ) -> None:
        """Resolve every name at once, or take the ``method`` that was resolved before.

        A model that is a folder or a hub name, or a mapping as in a recipe (``{"path": ...,
        "dtype": "bf16"}``), is loaded then, onto ``device``. Nothing is computed yet. ``robust`` is
        a perturbation: where the forget gradient is taken, so that forgetting survives relearning.
        ``evaluate`` is called every ``evaluate_every`` steps, and its values join those of the
        step. ``until`` is the goal, of logged values, at which the run ends; its steps are then the
        most that it may make. A run with a goal, or that ``warns``, says after a tenth of its steps
        where its rate is far too low.

        Raises:
            AmnesisError: a name or a hyper-parameter is wrong, a combiner has no retain stream, or
                the model cannot be loaded.
        """
        if method is None:
            names = registry or default_registry()
            method = Method.of(objective, regularizer, combiner, robust, probes, names)
        elif probes or any(c is not None for c in (objective, regularizer, combiner, robust)):
            raise RecipeError("give a method, or the names that one is built from, not both")
        self.method = method
        self.limits = limits_of(stop_when, method.probes)
        self.goals = goals_of(until, method.probes)
        if not isinstance(training, TrainingSettings):
            training = validated(TrainingSettings, training or {}, "training")
        suited = training.suited_to(method.combiner)
        self.training = suited.resolved(has_goal=bool(self.goals))
        self._warns = warns or bool(self.goals)
        self.template = template or Template()
        self.seed, self.device, self.output = seed, device, output
        self.reference_cache, self.callbacks = reference_cache, tuple(callbacks)
        self._evaluate = evaluate
        self._evaluate_every = None if evaluate is None else evaluate_every
        self.model, self.tokenizer = loaded(model, tokenizer, device)

    def fit(
        self,
        forget: Rows,
        retain: Rows | None = None,
        progress: ProgressCallback | None = None,
        *,
        resume: bool = False,
        reference: Reference | None = None,
    ) -> FitResult:
        """Unlearn ``forget`` while keeping ``retain``; rows have the template's fields.

        Or they are where rows are: a file, a mapping as in a recipe, or a list of such; or encoded
        examples. The model changes in place. ``resume`` goes on from ``output``'s last checkpoint,
        or starts where there is none. ``reference`` gives the frozen scores that losses read.

        Raises:
            DataError: a row lacks a field, a set is empty, or the checkpoint is of another run.
            NonFiniteError: a loss or gradient is no longer a finite number.
            ResourceError: memory does not suffice.
            Interrupted: Ctrl-C was pressed; a checkpoint was written if there is an ``output``.
        """
        damaged: list[str] = []  # of the reference's cache
        inputs = self._inputs(forget, retain, reference, progress, damaged.append)
        tested = self._recall_or_find_rate(inputs, resume, progress)
        training = self.training.resolved(
            has_goal=bool(self.goals), rate=None if tested is None else tested.rate
        )
        log, interruption = StepLog(), StopWhenInterrupted()
        kept = self.output
        with tempfile.TemporaryDirectory() if kept is None else nullcontext(kept) as output:
            trainer = self._trainer(
                TwoStreamTrainer,
                inputs,
                plan=inputs.plan,
                settings=training,
                output=Path(output),
                log=log,
                callbacks=(*self._evaluate_along(log), *self.callbacks, interruption),
            )
            sharded = trainer.is_fsdp_enabled
            before = None if sharded else self._risk(inputs.watched)
            pace = None
            if self._warns and not sharded:
                pace = self._pace(inputs, training, tested, log)
                trainer.add_callback(pace)
            passed_over = self._train(trainer, interruption, resume)
        lost = on_retain_risk(before, None if before is None else self._risk(inputs.watched))
        goal = trainer.goal()
        if goal is not None and not goal.reached and goal.step is None and pace is not None:
            goal = goal.model_copy(update={"advice": pace.advice()})
        notes = [one.note for one in (goal, tested) if one is not None]
        notes += [*self.method.notes(), *passed_over, *damaged, *trainer.notes(), *lost]
        return FitResult(
            trainer.state.global_step,
            log.trajectory,
            _summary(inputs.streams),
            notes,
            None if goal is None else goal.model_dump(mode="json", exclude_none=True),
            None if tested is None else tested.model_dump(mode="json", exclude_none=True),
        )

    def find_learning_rate(
        self,
        forget: Rows,
        retain: Rows | None = None,
        progress: ProgressCallback | None = None,
        *,
        reference: Reference | None = None,
    ) -> RangeTest:
        """Return the learning rate for a run over these rows, with the curve that it rests on.

        At most 25 steps are made, as :func:`~.pacing.range_test.find_learning_rate` says; then the
        model is put back bit for bit. The rate is meant for two thirds of the way of ``training``
        or, of a run with a goal, for a third of its steps.

        Raises:
            RecipeError: no rate moves the model, or its weights are sharded.
        """
        inputs = self._inputs(forget, retain, reference, progress, lambda note: None)
        return self._find_rate(inputs, progress)

    def _inputs(
        self,
        forget: Rows,
        retain: Rows | None,
        reference: Reference | None,
        progress: ProgressCallback | None,
        note: Callable[[str], None],
    ) -> _Inputs:
        if self.method.retain is not None and retain is None:
            raise RecipeError("a regularizer needs retain rows: fit(forget, retain)")
        self._check_trainable()
        join(self.device)
        streams, watched = self._encode_streams(forget, retain)
        plan = self._plan({name: examples for name, (examples, _) in streams.items()})
        check_same("the data of this run", plan.digest)
        return _Inputs(
            streams=streams,
            watched=watched,
            plan=plan,
            references=cache(partial(self._references, streams, reference, progress, note)),
            is_its_own_reference=reference is None,
        )

    def _trainer(
        self,
        kind: type[TwoStreamTrainer],
        inputs: _Inputs,
        *,
        method: Method | None = None,
        goes_on: bool = True,
        **options: Any,
    ) -> TwoStreamTrainer:
        """Return a trainer over the inputs; ``goes_on`` keeps checkpoints, limits and goal."""
        return kind(
            self.model,
            self.tokenizer,
            method or self.method,
            references=inputs.references,
            is_its_own_reference=inputs.is_its_own_reference,
            keeps_checkpoints=goes_on and self.output is not None,
            device=self.device,
            limits=self.limits if goes_on else {},
            goals=self.goals if goes_on else {},
            evaluate_every=self._evaluate_every,
            watched_retain=inputs.watched,
            **options,
        )

    def _recall_or_find_rate(
        self, inputs: _Inputs, resume: bool, progress: ProgressCallback | None
    ) -> RangeTest | None:
        """Return the range test of a run without a rate, kept where the run is resumed."""
        if self.training.learning_rate != "auto":
            return None
        folder = self.output
        if folder is not None and resume:
            kept = from_first_rank(lambda: recall_range_test(folder))
            if kept is not None:
                return kept
        tested = self._find_rate(inputs, progress)
        if folder is not None:
            keep_range_test(folder, tested)
        return tested

    def _find_rate(self, inputs: _Inputs, progress: ProgressCallback | None) -> RangeTest:
        without_probes, combiner = replace(self.method, probes=()), self.method.combiner
        with self._saying_what_to_lower(lambda: "the range test of the learning rate"):
            return find_learning_rate(
                self.model,
                inputs.plan,
                self.training,
                partial(self._trainer, inputs=inputs, method=without_probes, goes_on=False),
                partial(self._risks, inputs),
                steps=self.training.aim(inputs.plan.steps, has_goal=bool(self.goals)),
                preconditions=combiner is not None and combiner.preconditions,
                progress=progress,
            )

    @contextmanager
    def _saying_what_to_lower(self, where: Callable[[], str]) -> Iterator[None]:
        """Say, where memory does not suffice inside ``with``, what to set."""
        import torch

        try:
            yield
        except torch.OutOfMemoryError as error:
            size = self.training.micro_batch_size or self.training.batch_size
            raise ResourceError(
                f"{where()}: out of memory; lower "
                f"training.micro_batch_size (now {size}; results stay the same) or "
                f"template.max_length (now {self.template.max_length}), or set "
                f"training.gradient_checkpointing: true"
            ) from error

    def _risks(self, inputs: _Inputs) -> Risks:
        forget = self._risk(inputs.streams["forget"][0], spread_over=True)
        retain = self._risk(inputs.watched, spread_over=True)
        return Risks(math.nan if forget is None else forget, retain)

    def _pace(
        self, inputs: _Inputs, training: TrainingSettings, tested: RangeTest | None, log: StepLog
    ) -> Pace:
        combiner = self.method.combiner
        return Pace(
            training,
            inputs.plan.steps,
            partial(self._risk, inputs.streams["forget"][0], spread_over=True),
            log,
            tested=tested,
            combined=combiner is not None and getattr(combiner, "reads_gram", True),
        )

    def _risk(self, examples: ExampleSet | None, *, spread_over: bool = False) -> float | None:
        """Return the model's risk on the first examples of a set, in nats per label token.

        ``spread_over`` takes them from all of the set; None where memory does not suffice.
        """
        import torch

        if examples is None or not len(examples):
            return None
        count = self.training.micro_batch_size or self.training.batch_size
        chosen = examples.examples
        batch = collate(
            spread(chosen, count) if spread_over else chosen[:count], pad_token_id(self.tokenizer)
        )
        device = next(self.model.parameters()).device
        try:
            with torch.no_grad(), evaluating(self.model):
                head = ChunkedHead(self.model)
                scores = score(self.model, batch.to(device), Needs(logps=True), head=head)
        except torch.OutOfMemoryError:
            return None  # training needs more, and says what to lower
        return -float(scores.logps.sum() / scores.mask.sum())

    def _encode_streams(
        self, forget: Rows, retain: Rows | None
    ) -> tuple[dict[str, tuple[ExampleSet, StreamLoss]], ExampleSet | None]:
        """Return each stream's examples and loss, and the retain examples that probes watch."""
        method = self.method
        streams = {"forget": (self._encode(forget, method.forget), method.forget)}
        if method.retain is not None and retain is not None:
            streams["retain"] = self._encode(retain, method.retain), method.retain
            return streams, streams["retain"][0]
        if retain is not None and method.probes:
            return streams, self._encode(retain, StreamLoss("retain", ()))
        return streams, None

    def _plan(self, sets: Mapping[str, ExampleSet]) -> StepPlan:
        """Return which examples this rank sees at each step."""
        count = len(sets["forget"])
        steps, draws = self.training.length(count, has_goal=bool(self.goals))
        rank, ranks = world()
        return StepPlan(
            sets["forget"],
            sets.get("retain"),
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

    def _evaluate_along(self, log: StepLog) -> list[EvaluateAlong]:
        if self._evaluate is None or self._evaluate_every is None:
            return []
        at_end = bool(self.goals)
        return [EvaluateAlong(self._evaluate_every, self._evaluate, log, at_end=at_end)]

    def _references(
        self,
        streams: Mapping[str, tuple[ExampleSet, StreamLoss]],
        given: Reference | None,
        progress: ProgressCallback | None,
        note: Callable[[str], None],
    ) -> Mapping[str, Reference]:
        """Return the frozen scores that each stream reads: of the model as it is now, or given."""
        if given is not None:
            return dict.fromkeys(streams, given)
        return build_references(
            self.model,
            {name: (examples, loss.needs) for name, (examples, loss) in streams.items()},
            pad_token_id=pad_token_id(self.tokenizer),
            cache=self.reference_cache,
            precision=self.training.precision,
            copy_in_8_bits=self.training.reference_copy == "int8",
            progress=progress,
            note=note,
        )

    def _check_trainable(self) -> None:
        """Refuse what cannot train, or not on the device that is asked for."""
        import torch

        if self.device is not None:
            check_device(self.device)
            index = torch.device(self.device).index
            if index and world()[1] == 1:
                raise RecipeError(
                    f"device {self.device!r}: one process trains on the first device; choose "
                    f"another by CUDA_VISIBLE_DEVICES={index}"
                )
        device = self.device or str(self.model.device)
        self.training.check_on(device)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        if not trained:
            raise RecipeError("no parameter of the model trains: all of them are frozen")
        for dtype in {p.dtype for p in trained}:
            check_dtype(dtype, self.training.optimizer)

    def _train(
        self, trainer: TwoStreamTrainer, interruption: StopWhenInterrupted, resume: bool
    ) -> list[str]:
        """Train to the end; return notes on checkpoints that were passed over."""
        checkpoint: Path | None = None
        passed_over: list[str] = []
        if resume and self.output is not None:
            keep = self.training.keep_checkpoints
            checkpoint, passed_over = checkpoints.take_up(self.output, keep)
        try:
            with self._saying_what_to_lower(lambda: f"step {trainer.state.global_step}"):
                if checkpoint is None:
                    trainer.train()
                else:
                    trainer.resume(checkpoint)
        finally:
            interruption.restore()
            if not trainer.is_fsdp_enabled:  # whoever runs the model next chooses the precision
                trainer.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if interruption.number and trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(
                f"interrupted after step {trainer.state.global_step} of {trainer.state.max_steps}"
            )
        return passed_over

    def _encode(self, rows: Rows, loss: StreamLoss) -> ExampleSet:
        if isinstance(rows, ExampleSet):
            return rows
        template = self.template.within(self.model.config)
        return encode_stream(mixture_of(rows), loss, self.tokenizer, template)


def check_dtype(dtype: torch.dtype, optimizer: str) -> None:
    """Refuse weights of a type in which the optimizer's arithmetic fails.

    Raises:
        RecipeError: they are float16, and the optimizer is AdamW.
    """
    import torch

    if optimizer == "adamw" and dtype is torch.float16:
        raise RecipeError(
            "float16 weights do not train with adamw (its ε is 0 in float16): load the model in "
            "float32 or bfloat16 (model.dtype) and compute in float16 (training.precision)"
        )


def encode_stream(
    mixture: Mixture, loss: StreamLoss, tokenizer: PreTrainedTokenizerBase, template: AnyTemplate
) -> ExampleSet:
    """Return the examples of a stream, with all texts that its loss reads of a row.

    Raises:
        DataError: a row lacks a field or a column, or a part of the mixture has no usable example.
        RecipeError: two terms make different texts of one name.
    """
    every_row = [row for _, part in mixture.parts for row in part]
    check_columns(loss, every_row)
    texts = further_texts([loss], every_row)
    spans = template.spans if loss.name == "forget" else None
    return encode_mixture(mixture, tokenizer, template, name=loss.name, answers=texts, spans=spans)


def loaded(
    model: PreTrainedModel | ModelSettings | Mapping[str, Any] | str | Path,
    tokenizer: PreTrainedTokenizerBase | str | Path | None,
    device: str | None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a model and its tokenizer; what is the name of one, or of a folder, is loaded.

    Raises:
        ModelError: there is no such model, or it cannot be read.
        RecipeError: a loaded model comes without its tokenizer.
    """
    if isinstance(tokenizer, str | Path):
        tokenizer = load_tokenizer(ModelSettings(path=str(tokenizer)))
    if isinstance(model, str | Path):
        model = ModelSettings(path=str(model))
    elif isinstance(model, Mapping):
        model = validated(ModelSettings, model, "model")
    if isinstance(model, ModelSettings):
        check_model(model, trust_remote_code=False)
        tokenizer = tokenizer or load_tokenizer(model)
        model = load_model(model, device=None if device is None else check_device(device))
    if tokenizer is None:
        raise RecipeError("give the model's tokenizer too: Unlearner(model, tokenizer, …)")
    return model, tokenizer


def _summary(streams: Mapping[str, tuple[ExampleSet, StreamLoss]]) -> dict[str, dict[str, int]]:
    """Return how many examples each stream has, was cut of, and shares with the other."""
    data = {loss.name: examples.summary() for examples, loss in streams.values()}
    if "retain" in streams:
        shared = shared_examples(streams["retain"][0], streams["forget"][0])
        data["retain"]["also_in_forget"] = shared
    return data
