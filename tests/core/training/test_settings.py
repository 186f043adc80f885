"""The length and the schedule of a run, with a goal and without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from amnesis.errors import RecipeError
from amnesis.training.settings import TrainingSettings


@given(
    st.sampled_from(["constant", "linear", "cosine", "stable_decay"]),
    st.integers(1, 60),
    st.integers(0, 20),
    st.integers(0, 60),
)
def test_the_factors_of_a_schedule_are_those_of_transformers(
    schedule: Any, steps: int, warmup: int, first: int
) -> None:
    settings = TrainingSettings(schedule=schedule, warmup_steps=min(warmup, steps - 1))
    arguments = settings.arguments(steps, Path("out"), 0, "cpu")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    made = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        num_warmup_steps=arguments.warmup_steps,
        num_training_steps=steps,
        scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    first = min(first, steps)
    assert settings.full_steps(first, steps) == pytest.approx(sum(factors[:first]), abs=1e-9)


def test_a_goal_makes_the_steps_a_bound_that_leaves_room() -> None:
    plain = TrainingSettings()
    assert plain.length(40) == (25, 200)
    assert plain.length(40, has_goal=True) == (120, None)
    assert plain.length(400, has_goal=True) == plain.length(400) == (250, 2000)
    for settings in (TrainingSettings(steps=7), TrainingSettings(epochs=2.0)):
        assert settings.length(40, has_goal=True) == settings.length(40)


def test_a_goal_keeps_the_rate_constant_unless_a_schedule_is_named() -> None:
    assert TrainingSettings().resolved(has_goal=False).schedule == "linear"
    assert TrainingSettings().resolved(has_goal=True).schedule == "constant"
    named = TrainingSettings(schedule="cosine")
    assert named.resolved(has_goal=True, rate=0.5) == named.model_copy(
        update={"learning_rate": 0.5}
    )


def test_a_rate_that_was_never_found_trains_nothing() -> None:
    with pytest.raises(RecipeError, match="auto is for unlearning on two streams"):
        TrainingSettings(learning_rate="auto").arguments(3, Path("out"), 0, "cpu")
