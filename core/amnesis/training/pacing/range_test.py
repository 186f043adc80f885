"""A range test: a few steps at rising rates, after which everything is as it was before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers.trainer_callback import TrainerCallback

from amnesis.distributed.processes import from_first_rank, world
from amnesis.distributed.shards import is_sharded
from amnesis.errors import DataError, NonFiniteError, RecipeError
from amnesis.models.random_states import random_states_restored
from amnesis.progress import ProgressCallback
from amnesis.storage import read_record, write_json
from amnesis.training.pacing.choice import RANGE_STEPS, RangePoint, RangeTest, choose_rate, ending
from amnesis.training.report import StepLog
from amnesis.training.trainer import TwoStreamTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from amnesis.data.sampling import StepPlan
    from amnesis.training.settings import TrainingSettings

KEPT = "learning_rate.json"
# Four rates to a factor of ten, over six such factors. AdamW's steps are as large as its rate, and
# so are those of a combiner that preconditions; those of plain gradient descent are as large as
# rate and gradient, and that is clipped to 1.
GROWTH = 10 ** (1 / 4)
LOWEST, LOWEST_OF_GRADIENTS = 1e-7, 1e-4


class Risks(NamedTuple):
    """The model's risks on a few examples of each set, in nats per token."""

    forget: float
    retain: float | None


def find_learning_rate(
    model: PreTrainedModel,
    plan: StepPlan,
    settings: TrainingSettings,
    build: Callable[..., TwoStreamTrainer],
    measure: Callable[[], Risks],
    *,
    steps: float,
    preconditions: bool = False,
    progress: ProgressCallback | None = None,
) -> RangeTest:
    """Return the learning rate for ``steps`` full steps, by the rule of :func:`.choose_rate`.

    The run's own trainer makes at most 25 steps on the run's first batches, at rates that rise by
    a factor of 10 in four steps. After each step ``measure`` returns the two risks, which the
    first process decides on for all. Then the weights that train, their gradients, modes and every
    random state are restored, bit for bit; of the trainer nothing is left. ``build(kind,
    plan=…, settings=…, output=…, log=…, callbacks=…)`` makes a trainer. A copy of the weights that
    train is in main memory meanwhile. ``preconditions`` says that the combiner does, so that a step
    is as long as its rate whatever the optimizer.

    Raises:
        RecipeError: no rate follows, or the weights are sharded (FSDP).
    """
    by_rate = preconditions or settings.optimizer == "adamw"
    lowest = LOWEST if by_rate else LOWEST_OF_GRADIENTS
    rising = settings.model_copy(
        update={
            "learning_rate": lowest,
            "warmup_steps": 0,
            "schedule": "constant",
            "log_every": RANGE_STEPS + 1,
            "save_every": None,
        }
    )
    watch = _Watch(measure, progress)
    _check_whole(any(is_sharded(p) for p in model.parameters()))
    with _everything_restored(model), tempfile.TemporaryDirectory() as output:
        trainer = build(
            kind=_RisingTrainer,
            plan=replace(plan, steps=RANGE_STEPS, forget_draws=None),
            settings=rising,
            output=Path(output),
            log=StepLog(),
            callbacks=[watch],
        )
        _check_whole(trainer.is_fsdp_enabled)
        try:
            trainer.train()
        except NonFiniteError:
            watch.diverged()
        finally:
            trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return choose_rate(watch.curve, steps)


def _check_whole(sharded: bool) -> None:
    if sharded:
        raise RecipeError(
            "training.learning_rate: auto cannot measure a model that FSDP shards; name a rate, "
            "such as the one that a run on one device finds on an adapter (lora)"
        )


class _RisingTrainer(TwoStreamTrainer):
    """A trainer whose rate rises by :data:`GROWTH` with each step."""

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the schedule, a factor of the lowest rate."""
        from torch.optim.lr_scheduler import LambdaLR

        if self.lr_scheduler is None:
            self.lr_scheduler: Any = LambdaLR(
                self.optimizer if optimizer is None else optimizer, lambda step: GROWTH**step
            )
        return self.lr_scheduler


class _Watch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Measures both risks before the first step and after each, and ends the test in time."""

    def __init__(self, measure: Callable[[], Risks], progress: ProgressCallback | None) -> None:
        """Take what measures the model as it stands."""
        self._measure, self._progress = measure, progress
        self._rate = 0.0
        self.curve: list[RangePoint] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the model as it is."""
        self._observe()

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any
    ) -> None:
        """Note the rate of the step that is about to be made."""
        self._rate = float(optimizer.param_groups[0]["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure the model after a step; all processes decide alike."""
        self._observe()
        if self._progress is not None:
            self._progress("learning rate", state.global_step, RANGE_STEPS)
        if ending(self.curve) is not None:
            control.should_training_stop = True

    def diverged(self) -> None:
        """Add a step that could not be made, as its gradient was not finite."""
        rate = self._rate * GROWTH if self._rate else 1.0
        self.curve.append(_point(rate, Risks(float("nan"), None)))

    def _observe(self) -> None:
        self.curve.append(_point(self._rate, from_first_rank(self._measure)))


def _point(rate: float, risks: Risks) -> RangePoint:
    # Not validated: what is not finite ends the test, and is in no record.
    return RangePoint.model_construct(rate=rate, forget=risks.forget, retain=risks.retain)


@contextmanager
def _everything_restored(model: PreTrainedModel) -> Iterator[None]:
    """Restore, after ``with``, the weights that train, gradients, modes and random states."""
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    kept = [p.detach().to("cpu", copy=True) for p in trained]
    modes = [(module, module.training) for module in model.modules()]
    with random_states_restored():
        try:
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(trained, kept, strict=True):
                    p.copy_(value)
                    p.grad = None
            for module, mode in modes:
                module.training = mode


def keep_range_test(folder: Path, tested: RangeTest) -> None:
    """Keep a range test beside a run's checkpoints, for a run that is resumed."""
    if world()[0] == 0:
        write_json(folder / KEPT, tested.model_dump(mode="json"))


def recall_range_test(folder: Path) -> RangeTest | None:
    """Return the range test that was kept; None where it is missing or damaged, and repeated."""
    if not (folder / KEPT).is_file():
        return None
    try:
        return read_record(folder / KEPT, RangeTest.model_validate)
    except DataError:
        return None


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return ``count`` of some items, evenly spread over them, or all where there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
