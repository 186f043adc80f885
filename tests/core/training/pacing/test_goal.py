"""A goal holds when all of it does; what is said of it is what happened."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from amnesis.errors import RecipeError
from amnesis.training.pacing.goal import Goal
from amnesis.training.report import StepLog
from amnesis.training.stopping import StopAtLimits, goals_of, limits_of

GOAL = {"forget/probability": {"below": 0.1}, "forget/loss": {"above": 1.0, "for_steps": 2}}


def steps(
    stopping: StopAtLimits, log: StepLog, seen: list[dict[str, float]], first: int = 1
) -> Any:
    """Show steps to what ends a run; return the last one made, or None."""
    for step, values in enumerate(seen, start=first):
        log.begin(values)
        control = SimpleNamespace(should_training_stop=False, should_log=False)
        stopping.on_step_end(None, SimpleNamespace(global_step=step), control)
        assert control.should_log == control.should_training_stop
        if control.should_training_stop:
            return step
    return None


def test_all_goals_must_hold_at_once() -> None:
    log = StepLog()
    stopping = StopAtLimits({}, log, evaluate_every=2, goals=goals_of(GOAL))
    low, high = {"forget/probability": 0.05}, {"forget/probability": 0.5}
    loss = {"forget/loss": 2.0}
    seen = [
        loss,
        loss | low,  # both hold
    ]
    assert steps(stopping, log, seen) == 2
    log = StepLog()
    again = StopAtLimits({}, log, evaluate_every=2, goals=goals_of(GOAL))
    calm = {"forget/loss": 0.5}
    assert steps(again, log, [loss, loss | high, calm, calm | low, loss]) is None
    assert steps(again, log, [loss], first=6) == 6  # the probability held since, the loss again
    report = again.report(6, 50)
    assert report is not None
    assert (report.reached, report.step, report.cap) == (True, 6, 50)
    assert report.values == {"forget/loss": 2.0, "forget/probability": 0.05}
    assert report.note == (
        "the goal was reached after step 6: forget/probability was to be below 0.1, and is 0.05"
        "; forget/loss was to be above 1, and is 2"
    )


def test_a_cap_or_a_limit_that_comes_first_is_said_loudly() -> None:
    log = StepLog()
    stopping = StopAtLimits({}, log, goals=goals_of({"forget/loss": {"above": 3}}))
    assert steps(stopping, log, [{"forget/loss": 1.0}] * 4) is None
    report = stopping.report(4, 4)
    assert report is not None
    assert report.note.startswith(
        "THE GOAL WAS NOT REACHED in 4 steps: forget/loss was to be above"
    )
    assert report.step is None
    limits = limits_of({"retain/loss": {"above": 1}})
    stopping = StopAtLimits(limits, log, goals=goals_of({"forget/loss": {"above": 3}}))
    assert steps(stopping, log, [{"forget/loss": 1.0, "retain/loss": 2.0}]) == 1
    report = stopping.report(1, 9)
    assert report is not None
    assert (report.reached, report.step) == (False, 1)
    assert report.note.startswith("THE GOAL WAS NOT REACHED before stop_when ended the run: ")


def test_a_limit_and_a_goal_on_one_value_count_apart() -> None:
    log = StepLog()
    name = "forget/loss"
    stopping = StopAtLimits(
        limits_of({name: {"above": 9.0}}), log, goals=goals_of({name: {"above": 1.0}})
    )
    assert steps(stopping, log, [{name: 2.0}]) == 1
    assert log.notes == []  # it is the goal that was reached, and no limit passed


def test_of_two_bounds_a_goal_lies_between() -> None:
    goal = Goal(above=0.1, below=0.2)
    assert [goal.passed(value) for value in (0.05, 0.15, 0.25)] == [False, True, False]
    assert str(goal) == "above 0.1 and below 0.2"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"forget/loss": {"abov": 1}}, "until.forget/loss: abov: unknown key; did you mean"),
        ({"forget/loss": {}}, "give above, below, or both"),
        ({"forget/loss": {"above": 2, "below": 1}}, "no value is above the one and below"),
        ({}, "until: names no goal"),
    ],
)
def test_what_is_no_goal(choice: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        goals_of(choice)


def test_a_goal_on_what_nothing_gives_is_refused() -> None:
    log = StepLog()
    goals = goals_of({"forget/probabilty": {"below": 0.1}})
    stopping = StopAtLimits({}, log, evaluate_every=2, goals=goals)
    with pytest.raises(RecipeError, match=r"until: neither a probe .* did you mean 'forget/prob"):
        steps(stopping, log, [{}, {"forget/probability": 0.5}])
