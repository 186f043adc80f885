"""A range test leaves nothing behind but a rate, and the run is that of the rate."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import amnesis
from amnesis.contracts import LikelihoodTerm
from amnesis.data.sampling import StepPlan
from amnesis.errors import RecipeError
from amnesis.models.trainable import LoraSettings, with_lora
from amnesis.training.pacing import range_test
from amnesis.training.pacing.choice import RANGE_STEPS
from amnesis.training.trainer import TwoStreamTrainer
from amnesis.training.unlearner import Unlearner

TRAINING = {"steps": 6, "batch_size": 4, "learning_rate": "auto"}


class Constant(LikelihoodTerm):
    """A loss that nothing changes."""

    formula = "0"

    def terms(self, logps: Any, mask: Any, ref_logps: Any = None) -> Any:
        return logps * 0.0


def unlearner(model: Any, tokenizer: Any, objective: Any = "ga", **options: Any) -> Unlearner:
    training = {**TRAINING, **options.pop("training", {})}
    combiner = options.pop("combiner", "pcgrad")
    return Unlearner(
        model, tokenizer, objective, "kl", combiner, training=training, device="cpu", **options
    )


def everything(model: Any) -> dict[str, Any]:
    """Return copies of what a range test must not change."""
    return {
        "weights": copy.deepcopy(model.state_dict()),
        "gradients": [p.grad for p in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),  # type: ignore[index]  # the legacy state
        "python": random.getstate(),
    }


@pytest.mark.parametrize("kind", ["whole", "lora", "bfloat16"])
def test_all_is_put_back_and_the_same_is_found_again(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, kind: str
) -> None:
    model, options = tiny_llama, {}
    if kind == "lora":
        model = with_lora(model, LoraSettings(r=2, dropout=0.1))
    elif kind == "bfloat16":
        model, options = model.bfloat16(), {"training": {"precision": "bfloat16"}}
    model.eval()
    before = everything(model)
    run = unlearner(model, tiny_tokenizer, **options)
    found = run.find_learning_rate(qa_rows[:4], qa_rows[4:])
    after = everything(model)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert run.find_learning_rate(qa_rows[:4], qa_rows[4:]) == found
    assert 1e-6 < found.rate < 1
    assert found.steps == pytest.approx(2 / 3 * (6 - 2.5))  # it falls linearly to 1/6
    rates = [point.rate for point in found.curve]
    assert rates[0] == 0
    assert rates[1:] == pytest.approx([1e-7 * 10 ** (k / 4) for k in range(len(rates) - 1)])
    assert found.curve[0].retain is not None


def test_a_run_is_that_of_the_rate_that_was_found(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    """Batches, random states (here dropout's) and references are those of a run without a test."""
    trajectories, weights = [], []
    rate: Any = "auto"
    for _ in range(2):
        model = with_lora(copy.deepcopy(tiny_llama), LoraSettings(r=4, dropout=0.2), seed=3)
        fitted = unlearner(model, tiny_tokenizer, training={"learning_rate": rate}).fit(
            qa_rows[:4], qa_rows[4:]
        )
        trajectories.append(fitted.trajectory)
        weights.append(model.state_dict())
        if fitted.range_test is not None:
            assert f"auto found {fitted.range_test['rate']:.2g} in" in fitted.notes[0]
            rate = fitted.range_test["rate"]
    assert trajectories[0] == trajectories[1]
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    assert max(step["learning_rate"] for step in trajectories[0]) <= rate


def test_a_run_that_is_resumed_keeps_its_rate(
    tiny_llama: Any,
    tiny_tokenizer: Any,
    qa_rows: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = copy.deepcopy(tiny_llama)
    options = {"training": {"save_every": 2}, "output": tmp_path / "checkpoints"}
    whole = unlearner(tiny_llama, tiny_tokenizer, **options).fit(qa_rows[:4], qa_rows[4:])
    last = tmp_path / "checkpoints" / "00000006"
    last.rename(tmp_path / "gone")

    def found_again(*_: Any, **__: Any) -> Any:
        raise AssertionError("the rate was found again")

    monkeypatch.setattr("amnesis.training.unlearner.find_learning_rate", found_again)
    resumed = unlearner(copy.deepcopy(start), tiny_tokenizer, **options)
    assert resumed.fit(qa_rows[:4], qa_rows[4:], resume=True) == whole
    # A damaged record is no loss: it is made again.
    monkeypatch.undo()
    (tmp_path / "checkpoints" / range_test.KEPT).write_text("{", encoding="utf-8")
    again = unlearner(copy.deepcopy(start), tiny_tokenizer, **options)
    assert again.fit(qa_rows[:4], qa_rows[4:], resume=True) == whole


def test_what_it_tests_is_the_run_itself(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's first batches, optimizer and combiner; another of these finds another rate."""
    plans: list[StepPlan] = []
    trainer = TwoStreamTrainer.__init__

    def watched(self: Any, *positional: Any, **named: Any) -> None:
        plans.append(named["plan"])
        trainer(self, *positional, **named)

    monkeypatch.setattr(TwoStreamTrainer, "__init__", watched)
    unlearner(copy.deepcopy(tiny_llama), tiny_tokenizer).fit(qa_rows[:4], qa_rows[4:])
    test, run = plans
    assert test.steps == RANGE_STEPS
    for step in range(run.steps):
        for one, other in zip(test[step].forget, run[step].forget, strict=True):
            assert torch.equal(one.input_ids, other.input_ids)
    rates = {
        unlearner(copy.deepcopy(tiny_llama), tiny_tokenizer, **options)
        .find_learning_rate(qa_rows[:4], qa_rows[4:])
        .rate
        for options in ({}, {"combiner": "sago"}, {"training": {"optimizer": "sgd"}})
    }
    assert len(rates) == 3


def test_a_goal_is_aimed_at_in_a_third_of_the_steps(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    """Constant by default then, and 120 steps are room enough."""
    found = [
        unlearner(
            copy.deepcopy(tiny_llama),
            tiny_tokenizer,
            until={"forget/loss": {"above": 1}},
            training={"steps": steps},
        ).find_learning_rate(qa_rows[:4], qa_rows[4:])
        for steps in (None, 30)
    ]
    assert [one.steps for one in found] == [40, 10]
    assert found[1].rate == pytest.approx(4 * found[0].rate, rel=0.05)


def test_where_no_rate_can_be_found_it_is_said(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Unlearner(tiny_llama, tiny_tokenizer, Constant(), training=TRAINING, device="cpu")
    before = copy.deepcopy(tiny_llama.state_dict())
    with pytest.raises(RecipeError, match=r"auto found none: up to 0\.1 the risk"):
        run.fit(qa_rows[:4])
    torch.testing.assert_close(tiny_llama.state_dict(), before, rtol=0, atol=0)
    monkeypatch.setattr(range_test, "is_sharded", lambda p: True)
    with pytest.raises(RecipeError, match="auto cannot measure a model that FSDP shards"):
        unlearner(tiny_llama, tiny_tokenizer).fit(qa_rows[:4], qa_rows[4:])


def test_recipes_without_two_streams_name_a_rate() -> None:
    training = {"learning_rate": "auto"}
    shared = {"model": "m", "benchmark": "fictional", "training": training}
    with pytest.raises(RecipeError, match="name a procedure's rate"):
        amnesis.Recipe.parse({**shared, "procedure": "task_vector"})
    with pytest.raises(RecipeError, match="auto is of unlearning; name a rate"):
        amnesis.runs.recipe.FinetuneRecipe.parse({**shared, "sets": ["forget"]})
    amnesis.Recipe.parse({**shared, "objective": "ga"})
    with pytest.raises(RecipeError, match=r"training\.learning_rate: .* or 'auto'"):
        amnesis.Recipe.parse({**shared, "objective": "ga", "training": {"learning_rate": "aut"}})


def test_examples_are_taken_from_all_of_a_set() -> None:
    assert range_test.spread(range(10), 4) == [0, 2, 5, 7]
    assert range_test.spread(range(3), 4) == [0, 1, 2]
