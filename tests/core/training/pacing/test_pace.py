"""A run that will not forget says so within its first steps, with a number."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amnesis.training.pacing.choice import RangePoint, RangeTest
from amnesis.training.pacing.pace import MOST, POWER, Pace, rounded, too_low_by
from amnesis.training.report import StepLog
from amnesis.training.settings import TrainingSettings

TESTED = RangeTest(
    rate=1e-4, path=1e-3, steps=10, ended="forgotten", curve=(RangePoint(rate=0, forget=0.1),)
)


@given(st.floats(0.01, 50.0), st.floats(0.02, 1.0), st.floats(0.5, 3.0))
def test_the_factor_is_that_of_the_law_it_rests_on(
    factor: float, share: float, needed: float
) -> None:
    """Of a rise by ``needed`` × (rate × share of the way)^POWER, the missing factor is found."""
    rise = needed * (share / factor) ** POWER
    assert too_low_by(rise, needed, share) == pytest.approx(max(1.0, factor))


def test_what_does_not_rise_is_as_far_off_as_can_be_said() -> None:
    assert too_low_by(0.0, 2.0, 0.1) == too_low_by(-1.0, 2.0, 0.1) == MOST


def pace(risks: list[float], **options: Any) -> tuple[Pace, StepLog]:
    """Return what watches a run of 20 steps at 1e-4 whose risks are these, and its log."""
    log, seen = StepLog(), iter(risks)
    settings = TrainingSettings(learning_rate=1e-4, schedule="constant")
    return Pace(settings, 20, lambda: next(seen), log, **options), log


def watched(risks: list[float], **options: Any) -> list[str]:
    watch, log = pace(risks, **options)
    for step in range(1, 21):
        state = SimpleNamespace(global_step=step, max_steps=20, is_world_process_zero=True)
        watch.on_step_end(None, state, None)
    return log.notes


def test_it_is_said_after_a_tenth_of_the_steps(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (note,) = watched([0.01, 0.01001])
    assert note == (
        "after 2 of 20 steps the forget set has hardly moved: the learning rate is about 100 times "
        "too low; set training.learning_rate=0.01, or auto"
    )
    assert caplog.messages == [note]
    (note,) = watched([0.01, 0.016])  # 0.19 by the law at the end, of 2.3 that are needed
    assert "the learning rate is about 5 times too low; set training.learning_rate=0.0005" in note


def test_what_goes_the_wrong_way_is_not_too_slow() -> None:
    (note,) = watched([1.0, 0.9], combined=True)
    assert note.startswith("after 2 of 20 steps the forget set is known better than before: the")
    assert note.endswith("set combiner=null, which adds the two gradients")
    (note,) = watched([1.0, 0.9])
    assert "set a lower weight of the regularizer" in note


@pytest.mark.parametrize("risks", [[0.01, 0.2], [5.0, 5.0]])
def test_nothing_is_said_of_a_run_that_moves_or_has_nothing_to_forget(risks: list[float]) -> None:
    assert watched(risks) == []


def test_what_to_set_where_the_goal_was_missed() -> None:
    # A quarter of the way in log p: by the law 2.5 times too low.
    watch, _ = pace([0.0, 0.6])
    assert watch.advice() == "set training.steps=50, or training.learning_rate=0.0003"
    watch, _ = pace([0.0, 0.6], tested=TESTED, combined=True)
    assert watch.advice() == (
        "the combiner holds the objective back; set combiner=null, which adds the two gradients, "
        "or training.steps=50"
    )
    watch, _ = pace([1.0, 0.5])
    assert "what keeps the rest outweighs the objective" in watch.advice()
    watch, _ = pace([5.0, 5.0])  # nothing that could be measured
    assert watch.advice() == "set training.steps=40, or training.learning_rate=0.0002"


@given(st.floats(1e-12, 1e6))
def test_numbers_are_said_in_one_digit(value: float) -> None:
    assert rounded(rounded(value)) == rounded(value)
    assert rounded(value) == pytest.approx(value, rel=0.45)
