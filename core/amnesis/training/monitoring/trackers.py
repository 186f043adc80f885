"""Other people's trackers, such as wandb and mlflow: those that transformers knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers.trainer_callback import TrainerCallback

from amnesis.errors import RecipeError, did_you_mean, one_line

_OURS = ("tensorboard", "none", "all")


def build_trackers(names: Sequence[str]) -> list[TrainerCallback]:
    """Return transformers' callback for each tracker.

    Raises:
        RecipeError: there is none of that name, or its package is not installed.
    """
    from transformers.integrations import get_reporting_integration_callbacks
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    trackers = []
    for name in names:
        available = [one for one in INTEGRATION_TO_CALLBACK if one not in _OURS]
        if name == "tensorboard":
            raise RecipeError("TensorBoard's files are always written; leave it out")
        if name not in available:
            raise RecipeError(f"no tracker is called {name!r}; {did_you_mean(name, available)}")
        try:
            trackers += [tracker() for tracker in get_reporting_integration_callbacks([name])]
        except (ImportError, RuntimeError, AssertionError) as error:
            raise RecipeError(
                f"{name} cannot be used here: {one_line(error)}; install it, or take "
                f"it out of report_to"
            ) from error
    return trackers


class Trackers(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Hands what a run logs to trackers, metrics before and after it included.

    They are given numbers, and transformers' arguments and configuration of the model: no text of
    a set, and no checkpoint. A tracker that fails is noted and given nothing more; the run goes on.
    """

    def __init__(
        self,
        trackers: Mapping[str, TrainerCallback],
        run_name: str,
        opening: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """Take the trackers by name; ``opening`` returns the values before the first step."""
        self._trackers = dict(trackers)
        self._run_name, self._opening = run_name, opening
        self._last: tuple[Any, Any, Any, dict[str, Any]] | None = None
        self.notes: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Begin, under the run's name."""
        args.run_name = self._run_name
        self._last = args, state, control, rest
        self._tell("on_init_end", args, state, control, **rest)
        self._tell("on_train_begin", args, state, control, **rest)
        if state.global_step == 0 and (values := dict(self._opening())):
            self._tell("on_log", args, state, control, logs=values, **rest)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any
    ) -> None:
        """Hand a step's values on."""
        self._tell("on_log", args, state, control, logs=dict(logs or {}), **rest)

    def finish(self, values: Mapping[str, float]) -> None:
        """Hand on the values after the run, if this process trained it, and end."""
        if self._last is None:
            return
        args, state, control, rest = self._last
        if values:
            self._tell("on_log", args, state, control, logs=dict(values), **rest)
        self._tell("on_train_end", args, state, control, **rest)
        self._last = None

    def _tell(self, event: str, *arguments: Any, **rest: Any) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, event)(*arguments, **rest)
            except Exception as error:  # no network, no account: an observer stops no run
                del self._trackers[name]
                self.notes.append(f"{name} was told nothing further: {one_line(error)}")
