"""`stop_when`: a run ends where a value has been past its limit for long enough."""

from __future__ import annotations

from typing import Any

import pytest

from amnesis.errors import RecipeError
from amnesis.training.stopping import Stopping, limits_of
from amnesis.training.unlearner import Unlearner


class Control:
    should_training_stop = should_log = False


class State:
    global_step = 0


def steps_until_stop(limit: Any, values: list[dict[str, float]]) -> int | None:
    notes: list[str] = []
    current = iter(values)
    held: dict[str, float] = {}
    stopping = Stopping(limits_of({"retain_over_unlearn": limit}), lambda: held, notes.append)
    control, state = Control(), State()
    for step, held in enumerate(current, start=1):  # noqa: B007  # read by the callback
        state.global_step = step
        stopping.on_step_end(None, state, control)
        if control.should_training_stop:
            assert control.should_log
            assert f"after step {step}" in notes[0]
            return step
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
    result = run(tiny_llama, tiny_tokenizer, probes=["g_effect"], stop_when=stop).fit(
        qa_rows[:4], qa_rows[4:]
    )
    assert "stopped after step 3" in result.notes[0]
    assert [values["step"] for values in result.trajectory] == [1, 3]  # the last is always logged


def test_a_first_step_that_does_not_forget_has_no_ratio_and_is_no_fault() -> None:
    values = [{"g_effect/retain": 0.2, "g_effect/unlearn": 0.1}, {RATIO: 0.9}]
    assert steps_until_stop({"above": 0.5}, values) == 2


def test_a_limit_on_what_no_probe_gives_is_refused(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    stop = {"retain_over_unlearn": {"above": 1.0}}
    with pytest.raises(RecipeError, match="add the probe 'g_effect'"):
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
