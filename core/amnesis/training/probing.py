"""Shows a run's probes the model right before and right after the optimizer moves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from transformers.trainer_callback import TrainerCallback

from amnesis.contracts import Probe, StepContext
from amnesis.contracts.probe import RunView
from amnesis.contracts.stream import StreamLoss

if TYPE_CHECKING:
    from amnesis.data.examples import ExampleSet
    from amnesis.data.sampling import StepPlan
    from amnesis.scoring.reference import Reference


class UpdateWatch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Calls the probes that watch updates; a failure is told, and stops nothing."""

    def __init__(
        self,
        probes: Sequence[Probe],
        due: Callable[[], Sequence[int]],
        context: Callable[[], StepContext],
        values: Callable[[], dict[str, float]],
        failed: Callable[[int, Exception], None],
    ) -> None:
        """Take the probes, which of them observe this step, and where what they see goes."""
        self._probes, self._due, self._context = probes, due, context
        self._values, self._failed = values, failed
        self._held: dict[int, Any] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Let each probe that is due look at the model before the update."""
        self._held.clear()
        for index in self._due():
            probe = self._probes[index]
            if not probe.watches_update:
                continue
            try:
                self._held[index] = probe.before_update(self._context())
            except Exception as error:  # an observer may fail without stopping the run
                self._failed(index, error)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Let the same probes look at it after the update."""
        for index, held in self._held.items():
            try:
                seen = self._probes[index].after_update(self._context(), held)
                self._values().update(seen)
            except Exception as error:  # an observer may fail without stopping the run
                self._failed(index, error)
        self._held.clear()


def run_view(
    plan: StepPlan,
    forget_loss: StreamLoss,
    retain: ExampleSet | None,
    reference: Reference | None,
    device: object,
) -> RunView:
    """Show probes a run's data: of every rank, and past its last step."""
    whole = replace(plan, retain=retain, steps=plan.steps + 1, forget_draws=None, rank=0, world=1)
    return RunView(
        plan.forget, retain, forget_loss, reference, whole.__getitem__, plan.pad_token_id, device
    )
