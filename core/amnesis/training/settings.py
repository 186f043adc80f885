"""The sizes and optimizer of a run, and their translation into transformers' arguments."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from amnesis.config.settings import Settings, SpeltOut
from amnesis.data.sampling import steps_of
from amnesis.errors import RecipeError

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import TrainingArguments

    from amnesis.contracts.combiner import Combiner

_SCHEDULERS = {
    "constant": "constant_with_warmup",
    "linear": "linear",
    "cosine": "cosine",
    "stable_decay": "warmup_stable_decay",
}

Schedule = Literal["constant", "linear", "cosine", "stable_decay"]
Beta = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1e4)]
# A run with a goal ends at it: its steps are a bound, which must leave room.
CAP = 120


class TrainingSettings(Settings):
    """How a run trains: steps, batches, optimizer (AdamW by default), precision, checkpoints."""

    steps: int | None = Field(
        None, ge=1, description="optimizer steps, with until at most; or give epochs"
    )
    epochs: float | None = Field(
        None,
        gt=0,
        description="passes over the forget set; without steps or epochs 5, and with until 120 "
        "steps at least",
    )
    batch_size: int = Field(8, ge=1, description="forget examples per step, over all ranks")
    retain_batch_size: int | None = Field(None, ge=1, description="the same of retain examples")
    micro_batch_size: int | None = Field(None, ge=1, description="examples per forward pass")
    learning_rate: Rate | Literal["auto"] = Field(
        1e-5,
        description="the highest of the run; auto: found before the run by a range test, at most "
        "25 steps at rising rates, after which all is put back; the rate brings the forget set "
        "to where it is forgotten in two thirds of the run's way or, with until, in a third of its "
        "steps",
    )
    warmup_steps: int = Field(0, ge=0, description="steps in which the rate rises from 0")
    schedule: Schedule | None = Field(
        None,
        description="None: linear, or constant with until, whose steps are only a bound, at which "
        "linear and cosine would come to 0; stable_decay: constant to half (or to the warm-up's "
        "end, if that is later), then linear to 5 %",
    )
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="sgd where the combiner divides by a scale of its own, as cone does"
    )
    momentum: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="m, of sgd: the update is the running mean m·u + (1 − m)·gradient, so that the "
        "rate keeps its meaning; 0.9 where the combiner divides by a scale of its own",
    )
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="AdamW's two averages")
    weight_decay: float = Field(0.0, ge=0, description="of the weights that train")
    max_grad_norm: float = Field(1.0, ge=0, description="clips the combined gradient; 0: never")
    precision: Annotated[Literal["float32", "bfloat16", "float16"], SpeltOut] = Field(
        "float32", description="of the computation; weights keep the dtype they were loaded in"
    )
    bfloat16_weights: Literal["auto", "master", "stochastic", "plain"] = Field(
        "auto",
        description="how trained weights in bfloat16 are updated: through float32 master weights, "
        "by stochastic rounding (the memory of plain), or plain, rounded to nearest, which loses "
        "an update below 2⁻⁹ of a weight; auto: master where it fits the device, else stochastic. "
        "Weights of other types, as under FSDP2 with precision bfloat16, are not concerned",
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice instead of keeping them: less memory"
    )
    reference_copy: Literal["int8"] | None = Field(
        None, description="a frozen copy, where one is needed at all, in 8 bits (bitsandbytes)"
    )
    log_every: int = Field(1, ge=1, description="log every k-th step")
    statistics_every: int = Field(
        10,
        ge=1,
        description="on every k-th logged step, the first and the last: norms, cosine and "
        "conflicts of the two gradients, for which they are read once more",
    )
    save_every: int | None = Field(
        None, ge=1, description="write a checkpoint every k-th step; None: only when interrupted"
    )
    keep_checkpoints: int = Field(2, ge=1, description="how many of the last checkpoints stay")

    def check_on(self, device: str) -> None:
        """Check that a device can compute in the precision.

        Raises:
            RecipeError: it cannot.
        """
        if self.precision == "float16" and device.startswith("cpu"):
            raise RecipeError(
                "training.precision: float16 needs an accelerator; on a CPU say bfloat16 or float32"
            )

    @model_validator(mode="after")
    def _check_one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        return self

    def length(self, forget_examples: int, *, has_goal: bool = False) -> tuple[int, int | None]:
        """Return the optimizer steps of a run over that many examples, and its forget draws.

        The draws are None where every step is full. By default a run makes five epochs, and one
        that ends at a goal may make 120 steps at least.
        """
        if self.steps is not None:
            return self.steps, None
        steps, draws = steps_of(self.epochs or 5.0, forget_examples, self.batch_size)
        if has_goal and self.epochs is None and steps < CAP:
            return CAP, None
        return steps, draws

    def resolved(self, *, has_goal: bool, rate: float | None = None) -> TrainingSettings:
        """Return the settings with the schedule of a run, and a rate in place of ``auto``."""
        choices: dict[str, Any] = {}
        if self.schedule is None:
            choices["schedule"] = "constant" if has_goal else "linear"
        if rate is not None:
            choices["learning_rate"] = rate
        return self.model_copy(update=choices)

    def suited_to(self, combiner: Combiner | None) -> TrainingSettings:
        """Return the settings for a combiner: by momentum and unclipped if it preconditions.

        What was set by name stays.

        Raises:
            RecipeError: AdamW was, which would divide by a scale once more; or AdamW is given sgd's
                momentum.
        """
        if combiner is None or not combiner.preconditions:
            if self.momentum and self.optimizer == "adamw":
                raise RecipeError(
                    "training.momentum is sgd's: say training.optimizer: sgd, or for adamw give "
                    "its first average in training.betas"
                )
            return self
        if self.optimizer == "adamw" and "optimizer" in self.model_fields_set:
            raise RecipeError(
                f"training.optimizer: {combiner.registered_name} divides by a scale of its own, "
                f"and adamw would divide again; say sgd, or nothing"
            )
        suited = {"optimizer": "sgd", "momentum": 0.9, "max_grad_norm": 0.0}
        return self.model_copy(
            update={k: v for k, v in suited.items() if k not in self.model_fields_set}
        )

    def full_steps(self, first: int, steps: int) -> float:
        """Return how many steps at the full rate the first ones of a run of ``steps`` amount to.

        That is the sum of the schedule's factors, as transformers computes them.
        """
        return sum(self._factor(step, steps) for step in range(first))

    def aim(self, steps: int, *, has_goal: bool) -> float:
        """Return in how many steps at the full rate a run of ``steps`` is to forget.

        A third of them where they are only a bound. Otherwise two thirds of what they amount to:
        while a rate falls, the regularizer wins back some of the way.
        """
        if has_goal:
            return self.full_steps(max(1, math.ceil(steps / 3)), steps)
        return self.full_steps(steps, steps) * 2 / 3

    def _factor(self, step: int, steps: int) -> float:
        """Return the schedule's factor at a step, counted from 0."""
        warm = self.warmup_steps
        if self.schedule == "stable_decay":  # its warm-up rises from 5 % as well
            decay = self._decay_steps(steps)
            done = min(1.0, max(0.0, (step - (steps - decay)) / decay))
            return 1 - 0.95 * (1 - step / warm if step < warm else done)
        if step < warm:
            return step / warm
        share = (step - warm) / max(1, steps - warm)
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * share)) / 2
        return 1.0 if self.schedule == "constant" else 1 - share

    def _decay_steps(self, steps: int) -> int:
        return max(1, steps - max(steps // 2, self.warmup_steps))

    def own_optimizer(self) -> tuple[type[Optimizer], dict[str, Any]] | None:
        """Return the optimizer's class and options where it is not one of transformers'."""
        if self.optimizer != "sgd" or not self.momentum:
            return None
        from amnesis.training.optimizers.momentum import Momentum

        return Momentum, {"lr": self.learning_rate, "momentum": self.momentum}

    def arguments(
        self, steps: int, output: Path, seed: int, device: str | None
    ) -> TrainingArguments:
        """Return the arguments for transformers' Trainer, to which a batch is a whole step.

        ``steps`` is from :meth:`length`; checkpoints are written into ``output``.

        Raises:
            RecipeError: the learning rate is still to be found.
        """
        if self.learning_rate == "auto":
            raise RecipeError(
                "training.learning_rate: auto is for unlearning on two streams; name a rate here"
            )
        from transformers import TrainingArguments

        scheduler: dict[str, Any] = {}
        if self.schedule == "stable_decay":
            scheduler = {
                "num_decay_steps": self._decay_steps(steps),
                "min_lr_ratio": 0.05,
                "decay_type": "linear",
            }
        return TrainingArguments(
            output_dir=str(output),
            max_steps=steps,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=1,
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            lr_scheduler_type=_SCHEDULERS[self.schedule or "linear"],
            lr_scheduler_kwargs=scheduler,
            optim="adamw_torch" if self.optimizer == "adamw" else "sgd",
            adam_beta1=self.betas[0],
            adam_beta2=self.betas[1],
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            bf16=self.precision == "bfloat16",
            fp16=self.precision == "float16",
            activation_checkpointing=self.gradient_checkpointing,
            activation_checkpointing_kwargs={"use_reentrant": False},
            logging_steps=self.log_every,
            logging_first_step=True,
            logging_nan_inf_filter=False,
            save_strategy="steps" if self.save_every else "no",
            save_steps=self.save_every or steps,
            report_to=[],
            remove_unused_columns=False,
            seed=seed,
            use_cpu=device == "cpu",
            disable_tqdm=True,
        )
