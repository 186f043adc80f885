"""A run ends early where a value has been past its limit for long enough, or on Ctrl-C."""

from __future__ import annotations

import copy
import math
import signal
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from amnesis.contracts import Probe, StepContext
from amnesis.errors import RecipeError
from amnesis.training.report import StepLog
from amnesis.training.stopping import StopAtLimits, StopWhenInterrupted, limits_of
from amnesis.training.unlearner import Unlearner


class Ratios(Probe):
    logs = ("g_effect/",)
    short_names = {"retain_over_unlearn": "g_effect/retain_over_unlearn"}

    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        return {}, state


def steps_until_stop(
    limit: Any,
    values: list[dict[str, float]],
    name: str = "retain_over_unlearn",
    evaluate_every: int | None = None,
) -> int | None:
    log, probes = StepLog(), [Ratios()]
    stopping = StopAtLimits(limits_of({name: limit}, probes), log, probes, evaluate_every)
    for step, seen in enumerate(values, start=1):
        log.begin(seen)
        control = SimpleNamespace(should_training_stop=False, should_log=False)
        stopping.on_step_end(None, SimpleNamespace(global_step=step), control)
        assert control.should_log == control.should_training_stop
        if control.should_training_stop:
            (note,) = log.notes
            assert f"stopped after step {step}: " in note
            return step
    assert log.notes == []
    return None


RATIO = "g_effect/retain_over_unlearn"


@pytest.mark.parametrize(
    ("limit", "ratios", "stop"),
    [
        ({"above": 0.5}, [0.1, 0.4, 0.6, 0.1], 3),
        ({"above": 0.5, "for_steps": 2}, [0.6, 0.1, 0.6, 0.7], 4),
        ({"above": 0.5, "for_steps": 2}, [0.6, None, 0.6], 3),
        ({"above": 0.5, "for_steps": 3}, [0.6, 0.6, 0.5, 0.6, 0.6], None),
        ({"below": -1.0}, [0.0, -1.5], 2),
        ({"above": 1.0, "below": -1.0, "for_steps": 2}, [2.0, -2.0], 2),
    ],
)
def test_counting(limit: Any, ratios: list[float | None], stop: int | None) -> None:
    assert steps_until_stop(limit, [{} if r is None else {RATIO: r} for r in ratios]) == stop


def test_what_is_not_defined_on_a_step_neither_counts_nor_breaks_a_row() -> None:
    ratios = [math.nan, 0.9, math.nan, 0.9]
    limit = {"above": 0.5, "for_steps": 2}
    assert steps_until_stop(limit, [{RATIO: ratio} for ratio in ratios]) == 4


def test_what_a_checkpoint_kept_is_counted_on_from() -> None:
    limits, log = limits_of({"forget/loss": {"above": 1.0, "for_steps": 3}}), StepLog()
    first, second = StopAtLimits(limits, log), StopAtLimits(limits, log)
    for step, stopping in ((1, first), (2, first), (3, second)):
        if stopping is second:
            second.counts = dict(first.counts)
        log.begin({"forget/loss": 2.0})
        control = SimpleNamespace(should_training_stop=False, should_log=False)
        stopping.on_step_end(None, SimpleNamespace(global_step=step), control)
        assert control.should_training_stop == (step == 3)


def test_a_value_of_evaluations_is_expected_with_the_first_of_them() -> None:
    name = "forget/probability"
    values: list[dict[str, float]] = [{}, {}, {name: 0.5}, {}, {}, {name: 0.1}]
    assert steps_until_stop({"below": 0.2}, values, name, evaluate_every=3) == 6
    with pytest.raises(RecipeError, match=f"gives {name!r}"):
        steps_until_stop({"below": 0.2}, values, name, evaluate_every=2)
    with pytest.raises(RecipeError, match="neither a probe nor an evaluation of this run gives"):
        steps_until_stop({"below": 0.2}, values, name)


def test_a_value_of_a_probe_is_expected_on_the_first_step() -> None:
    with pytest.raises(RecipeError, match="add the probe that gives it"):
        steps_until_stop({"above": 0.5}, [{"g_effect/retain": 0.1}], evaluate_every=2)


def test_a_probe_that_fails_at_its_first_step_ends_no_run(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    """Its note says that the limit ends nothing; then it must not end the run either."""

    class Broken(Ratios):
        def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
            raise ValueError("broken")

    stop_when = {"retain_over_unlearn": {"above": 0.5}}
    fitted = run(tiny_llama, tiny_tokenizer, probes=[Broken()], stop_when=stop_when).fit(
        qa_rows[:4], qa_rows[4:]
    )
    assert fitted.steps == 6
    (note,) = [note for note in fitted.notes if "failed at step 0" in note]
    assert note.endswith("; a limit of stop_when on what it logs ends nothing")


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({}, "give above, below, or both"),
        ({"above": 1, "for_steps": 0}, "for_steps"),
        ({"abov": 1}, "stop_when.retain_over_unlearn: abov: unknown key; did you mean 'above'"),
        (3, "stop_when.retain_over_unlearn"),
    ],
)
def test_what_is_no_limit(limit: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        limits_of({"retain_over_unlearn": limit})


def run(model: Any, tokenizer: Any, **options: Any) -> Unlearner:
    training = {"steps": 6, "batch_size": 2, "learning_rate": 1e-3, "log_every": 4}
    return Unlearner(model, tokenizer, "ga", "nll", training=training, device="cpu", **options)


def test_a_run_ends_early_and_says_why(tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any) -> None:
    stop = {"retain_over_unlearn": {"above": -1e9, "for_steps": 3}}
    result = run(
        tiny_llama, tiny_tokenizer, probes=[{"name": "g_effect", "every": 1}], stop_when=stop
    ).fit(qa_rows[:4], qa_rows[4:])
    assert "stopped after step 3" in result.notes[0]
    assert [values["step"] for values in result.trajectory] == [1, 3]  # the last is always logged


def test_a_first_step_that_does_not_forget_has_no_ratio_and_is_no_fault() -> None:
    values = [{"g_effect/retain": 0.2, "g_effect/unlearn": 0.1, RATIO: math.nan}, {RATIO: 0.9}]
    assert steps_until_stop({"above": 0.5}, values) == 2


def test_a_limit_on_what_no_probe_gives_is_refused(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    stop = {"retain_over_unlearn": {"above": 1.0}}
    with pytest.raises(RecipeError, match="add the probe that gives it"):
        run(tiny_llama, tiny_tokenizer, stop_when=stop).fit(qa_rows[:4], qa_rows[4:])


def test_a_limit_on_what_no_evaluation_gives_is_refused_at_the_first(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    evaluated: list[int] = []

    def evaluate(model: Any) -> dict[str, float]:
        evaluated.append(1)
        return {"forget/probability": 0.5}

    stop = {"forget/probabilty": {"below": 0.1}}
    options = {"evaluate": evaluate, "evaluate_every": 2, "stop_when": stop}
    with pytest.raises(RecipeError, match="did you mean 'forget/probability'"):
        run(tiny_llama, tiny_tokenizer, **options).fit(qa_rows[:4], qa_rows[4:])
    assert len(evaluated) == 1


@pytest.fixture
def interruption() -> Any:
    """Listening for Ctrl-C, until the test is over."""
    # A shell without job control lets what it starts in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    listening = StopWhenInterrupted()
    listening.on_train_begin(None, None, None)
    yield listening
    listening.restore()
    signal.signal(signal.SIGINT, before)


def test_the_first_ctrl_c_stops_after_its_step_with_a_checkpoint(
    interruption: StopWhenInterrupted,
) -> None:
    control = SimpleNamespace(should_training_stop=False, should_save=False)
    interruption.on_step_end(None, None, control)
    assert not control.should_training_stop
    signal.raise_signal(signal.SIGINT)
    interruption.on_step_end(None, None, control)
    assert control.should_training_stop
    assert control.should_save


def test_the_second_ctrl_c_is_immediate(interruption: StopWhenInterrupted) -> None:
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_after_training_ctrl_c_is_what_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    listening = StopWhenInterrupted()
    listening.on_train_begin(None, None, None)
    assert signal.getsignal(signal.SIGINT) is not before
    listening.on_train_end(None, None, None)
    assert signal.getsignal(signal.SIGINT) is before


def until(model: Any, tokenizer: Any, **options: Any) -> Unlearner:
    """Return an unlearner whose forget probability, as it is evaluated, falls by 0.1 a time."""
    left = iter([0.9 - 0.1 * k for k in range(10)])
    training = {"steps": 9, "batch_size": 2, "learning_rate": 1e-3, **options.pop("training", {})}
    return Unlearner(
        model,
        tokenizer,
        "ga",
        "nll",
        training=training,
        device="cpu",
        evaluate=lambda model: {"forget/probability": next(left)},
        evaluate_every=2,
        **options,
    )


def test_a_run_ends_at_its_goal(tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any) -> None:
    goal = {"forget/probability": {"below": 0.75}, "forget/loss": {"below": 0.0}}
    fitted = until(tiny_llama, tiny_tokenizer, until=goal).fit(qa_rows[:4], qa_rows[4:])
    assert fitted.steps == 6
    assert fitted.goal is not None
    assert fitted.goal["reached"] is True
    assert (fitted.goal["step"], fitted.goal["cap"]) == (6, 9)
    assert fitted.goal["values"]["forget/probability"] == pytest.approx(0.7)
    assert fitted.notes[0].startswith("the goal was reached after step 6: forget/probability was")
    rates = {step["learning_rate"] for step in fitted.trajectory}
    assert rates == {1e-3}  # the steps are only a bound, at which the rate need not end


def test_a_goal_that_the_cap_cuts_off_is_said_loudly(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    """The last step is evaluated too, also where it is no second one: 9 here."""
    fitted = until(tiny_llama, tiny_tokenizer, until={"forget/probability": {"below": 0.1}}).fit(
        qa_rows[:4], qa_rows[4:]
    )
    assert fitted.steps == 9
    assert [s["step"] for s in fitted.trajectory if "forget/probability" in s] == [2, 4, 6, 8, 9]
    assert fitted.goal is not None
    assert fitted.goal["reached"] is False
    assert "step" not in fitted.goal
    assert fitted.goal["advice"] in fitted.notes[0]
    assert fitted.notes[0].startswith("THE GOAL WAS NOT REACHED in 9 steps: forget/probability was")
    assert "training.steps=" in fitted.notes[0]


@pytest.mark.parametrize("key", ["until", "stop_when"])
def test_a_run_cut_off_after_its_last_step_makes_no_other(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Any, key: str
) -> None:
    """Its checkpoint is there, and what it came to is not: as when it is killed then."""
    options = {
        key: {"forget/probability": {"below": 0.75}},
        "output": tmp_path,
        "training": {"save_every": 2},
    }
    start = copy.deepcopy(tiny_llama)
    whole = until(tiny_llama, tiny_tokenizer, **options).fit(qa_rows[:4], qa_rows[4:])
    assert whole.steps == 6
    again = until(start, tiny_tokenizer, **options).fit(qa_rows[:4], qa_rows[4:], resume=True)
    assert again == whole
    torch.testing.assert_close(start.state_dict(), tiny_llama.state_dict(), rtol=0, atol=0)
