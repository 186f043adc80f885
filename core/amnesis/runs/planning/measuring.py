"""Two real steps of a run, and what they took."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers.trainer_callback import TrainerCallback

from amnesis.errors import RecipeError
from amnesis.models.loading import load_model, load_tokenizer
from amnesis.progress import ProgressCallback
from amnesis.runs.planning.plan import GIB
from amnesis.runs.run import trainable_model
from amnesis.training.callbacks import StepProgress
from amnesis.training.unlearner import Unlearner

if TYPE_CHECKING:
    from amnesis.runs.preflight import Prepared
    from amnesis.runs.recipe import Recipe

STEPS = 2  # the optimizer has its state from the first on, and the second finds it there
_RATE = 1e-6  # of a run whose own is still to be found; it changes neither memory nor time


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What two steps took.

    Attributes:
        peak: the bytes of all tensors that were alive at once, at most; None where no count is
            kept.
        seconds: how long the second of them took.
        steps: how many the run will make.
    """

    peak: int | None
    seconds: float
    steps: int

    def lines(self) -> list[str]:
        """Return it in words."""
        memory = "" if self.peak is None else f"{self.peak / GIB:.2f} GiB at the highest, "
        return [
            f"measured in {STEPS} steps: {memory}{self.seconds:.2f} s a step, so about "
            f"{_duration(self.seconds * self.steps)} for {self.steps} steps (evaluations and "
            f"probes that watch seldom come on top)"
        ]


def measure_steps(
    recipe: Recipe,
    prepared: Prepared,
    *,
    trust_remote_code: bool = False,
    progress: ProgressCallback | None = None,
) -> Measured:
    """Make the first two steps of a run, of which nothing is written, and return what they took.

    Raises:
        AmnesisError: the model cannot be loaded, memory does not suffice, or the run is a
            procedure, which makes no such steps.
    """
    if prepared.method.procedure is not None:
        raise RecipeError("--measure: a procedure has no steps on two streams to measure")
    device, watch = prepared.device, _Watch()
    model = load_model(recipe.model, device=device, trust_remote_code=trust_remote_code)
    tokenizer = load_tokenizer(recipe.model, trust_remote_code=trust_remote_code)
    changes: dict[str, Any] = {"steps": STEPS, "epochs": None, "save_every": None}
    if recipe.training.learning_rate == "auto":
        changes["learning_rate"] = _RATE
    unlearner = Unlearner(
        trainable_model(recipe, model),
        tokenizer,
        method=prepared.method,
        training=recipe.training.model_copy(update=changes),
        template=recipe.template,
        seed=recipe.seed,
        callbacks=[watch, *([] if progress is None else [StepProgress(progress, "measuring")])],
        device=device,
    )
    with _counted(unlearner.model, device) as peak:
        unlearner.fit(
            prepared.examples["forget"],
            prepared.examples.get("retain", prepared.retain),
            progress=progress,
        )
    return Measured(peak=peak(), seconds=watch.seconds, steps=prepared.cost.steps)


class _Watch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Takes the time of the last step."""

    seconds = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        _wait()
        self._start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop it."""
        _wait()
        self.seconds = time.perf_counter() - self._start


def _wait() -> None:
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


@contextmanager
def _counted(model: Any, device: str) -> Iterator[Callable[[], int | None]]:
    """Count inside ``with`` the bytes that are allocated, and yield what returns the most at once.

    A GPU's allocator counts by itself. On a CPU the profiler hears of every allocation, those
    inside an operation included. The memory of the process would say less: the C library keeps
    what is freed, so that it depends on what the process did before.
    """
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
        return
    if torch.device(device).type != "cpu":
        yield lambda: None
        return
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in (*model.parameters(), *model.buffers())
    }
    before = sum(storages.values())
    gc.collect()  # so that what nobody holds any more is not freed while it listens
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        yield lambda: before + _most(profile)


def _most(profile: Any) -> int:
    """Return the most bytes that were allocated at once while a profiler listened."""
    events = profile.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    now = most = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        now += change
        most = max(most, now)
    return most


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
