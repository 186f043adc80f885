"""The verdict: constructed runs get the right one, each number is named, none is hidden."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amnesis.contracts import Verdict
from amnesis.runs.recipe import PartialRecipe
from amnesis.runs.results import Results
from amnesis_evaluation.reports.verdict import verdict_of

BEFORE = {
    "forget/probability": 0.99, "forget/extraction_strength": 1.0, "forget/rouge_l": 0.95,
    "retain/probability": 0.98, "retain/rouge_l": 0.96, "facts/probability": 0.97,
    "holdout/probability": 0.01, "holdout/extraction_strength": 0.06, "holdout/rouge_l": 0.25,
}  # fmt: skip
FORGETTING = {
    "not_at_all": (0.985, 0.99, 0.94),
    "partly": (0.5, 0.4, 0.7),
    "forgotten": (0.012, 0.07, 0.24),
    "too_much": (1e-6, 0.05, 0.0),
}
RETENTION = {"kept": (0.97, 0.95, 0.96), "damaged": (0.8, 0.9, 0.95), "broken": (0.2, 0.1, 0.9)}


def around(values: dict[str, float], width: float) -> dict[str, tuple[float, float]]:
    return {name: (value * (1 - width), value * (1 + width)) for name, value in values.items()}


def run_of(forget: tuple[float, ...], rest: tuple[float, ...], **further: Any) -> Results:
    names = ("forget/probability", "forget/extraction_strength", "forget/rouge_l")
    kept = ("retain/probability", "retain/rouge_l", "facts/probability")
    after = {
        **BEFORE,
        **dict(zip(names, forget, strict=True)),
        **dict(zip(kept, rest, strict=True)),
    }
    intervals = {"before": around(BEFORE, 0.02), "after": around(after, 0.02)}
    trajectory = [{"step": k + 1, "learning_rate": 1e-5} for k in range(20)]
    document = {"before": BEFORE, "after": after, "intervals": intervals, "steps": 20,
                "trajectory": trajectory, **further}  # fmt: skip
    return Results.model_validate(document)


def told(results: Results, recipe: PartialRecipe | None = None) -> Verdict:
    verdict = verdict_of(results, recipe)
    assert verdict is not None
    return verdict


@pytest.mark.parametrize(("forgetting", "retention"), itertools.product(FORGETTING, RETENTION))
@pytest.mark.parametrize("intervals", [True, False], ids=["intervals", "values alone"])
def test_constructed_runs(forgetting: str, retention: str, intervals: bool) -> None:
    results = run_of(FORGETTING[forgetting], RETENTION[retention])
    if not intervals:
        results = results.model_copy(update={"intervals": {}})
    verdict = told(results)
    assert (verdict.forgetting, verdict.retention) == (forgetting, retention)
    heads = {"not_at_all": "It forgot nothing", "partly": "It forgot in part",
             "forgotten": "It forgot,", "too_much": "It forgot too much"}  # fmt: skip
    tails = {"kept": "kept the rest", "damaged": "damaged the rest", "broken": "broke the rest"}
    assert verdict.sentence.startswith(heads[forgetting])
    assert tails[retention] in verdict.sentence
    assert "\n" not in verdict.sentence


def test_every_number_that_tells_is_among_the_reasons_with_its_interval() -> None:
    results = run_of(FORGETTING["partly"], RETENTION["damaged"])
    verdict = told(results)
    assert results.after is not None
    reasons = {one.metric: one for one in verdict.because}
    assert set(reasons) == {name for name in BEFORE if not name.startswith("holdout/")}
    for name, one in reasons.items():
        assert one.value == results.after[name]
        assert one.interval == results.intervals["after"][name]
        assert one.about == ("forgetting" if name.startswith("forget/") else "retention")
        assert one.text.startswith(f"{name} is {one.value:.3f} (")
    first = verdict.because[0]
    assert first.metric == "forget/rouge_l"  # the furthest from where it should be
    assert first.text in verdict.sentence


def test_the_retrained_model_is_where_forgetting_ends() -> None:
    """The same values are too much, enough or too little, by what a retrained model scores."""
    forget = (0.2, 0.2, 0.5)
    levels = []
    for retrained in (0.2, 0.05):
        values = {"forget/probability": retrained, "forget/extraction_strength": retrained,
                  "forget/rouge_l": 0.5}  # fmt: skip
        levels.append(told(run_of(forget, RETENTION["kept"], retrained=values)).forgetting)
    assert levels == ["forgotten", "partly"]


def test_an_evaluation_alone_is_told_by_the_rows_never_seen_or_stated_thresholds() -> None:
    def alone(**values: float) -> Verdict:
        after = {name.replace("__", "/"): value for name, value in values.items()}
        return told(Results(after=after))

    assert alone(forget__probability=0.1).forgetting == "forgotten"
    assert "0.200 as a stated threshold" in alone(forget__probability=0.1).because[0].text
    assert alone(forget__probability=0.9).forgetting == "not_at_all"
    assert alone(forget__probability=0.3).forgetting == "partly"
    assert alone(forget__probability=0.1, holdout__probability=0.01).forgetting == "partly"
    verdict = alone(forget__probability=0.1, retain__probability=0.9)
    assert verdict.retention is None
    assert "what that cost was not measured" in verdict.sentence
    assert verdict_of(Results()) is None


def test_what_was_never_known_cannot_be_forgotten() -> None:
    unknown = {"forget/probability": 0.012, "holdout/probability": 0.01, "retain/probability": 0.9}
    verdict = told(Results(before=unknown, after=unknown))
    assert verdict.forgetting is None
    assert verdict.sentence.startswith("It knew nothing that it could forget, and kept the rest")
    assert verdict.advice[0].startswith("see what the model does know: amnesis ask")
    assert [one.metric for one in verdict.because] == ["forget/probability", "retain/probability"]


@pytest.mark.parametrize(
    ("value", "ends", "level"),
    [
        (0.95, (0.9, 1.0), "not_at_all"),
        (0.8, (0.75, 0.85), "partly"),
        (0.6, (0.5, 0.7), "forgotten"),
        (0.75, (0.45, 0.95), "forgotten"),
        (0.2, (0.1, 0.3), "too_much"),
        (0.25, (0.0, 0.6), "forgotten"),
    ],
)
def test_membership(value: float, ends: tuple[float, float], level: str) -> None:
    results = Results(
        before={"mia_loss": 0.98},
        after={"mia_loss": value},
        intervals={"after": {"mia_loss": ends}},
    )
    assert told(results).forgetting == level


def test_a_perplexity_that_rises_is_damage_and_tasks_of_hazards_must_go() -> None:
    before = {"retain/perplexity": 2.0, "lm_eval/wmdp_bio/acc": 0.6, "lm_eval/mmlu/acc": 0.5}
    after = {"retain/perplexity": 3.0, "lm_eval/wmdp_bio/acc": 0.27, "lm_eval/mmlu/acc": 0.49}
    verdict = told(Results(before=before, after=after))
    assert (verdict.forgetting, verdict.retention) == ("forgotten", "damaged")
    assert {one.metric: one.level for one in verdict.because} == {
        "lm_eval/wmdp_bio/acc": "forgotten",
        "retain/perplexity": "damaged",
        "lm_eval/mmlu/acc": "kept",
    }


def test_what_comes_back_under_attack_is_said_and_changes_no_level() -> None:
    attacks = {"relearning": {"after": {"forget/probability": 0.9, "retain/probability": 0.9}}}
    verdict = told(run_of(FORGETTING["forgotten"], RETENTION["kept"], attacks=attacks))
    assert verdict.forgetting == "forgotten"
    last = verdict.because[-1]
    assert (last.metric, last.value, last.level) == ("relearning/forget/probability", 0.9, None)
    assert last.text == "under the attack relearning forget/probability is 0.900"


def test_an_attack_s_values_may_say_how_they_were_made() -> None:
    values = {"forget/probability@8bit-nearest": 0.1, "forget/probability@4bit-nearest": 0.7}
    attacks = {"quantization": {"after": values}}
    last = told(run_of(FORGETTING["forgotten"], RETENTION["kept"], attacks=attacks)).because[-1]
    assert last.metric == "quantization/forget/probability@4bit-nearest"
    assert last.value == 0.7


def test_values_of_the_model_under_attack_are_not_its_own() -> None:
    after = {"forget/probability": 0.01, "relearning/forget/probability": 0.9}
    assert told(Results(after=after)).forgetting == "forgotten"


# -- what to do -----------------------------------------------------------------------------------


def test_where_nothing_moved_the_learning_rate_is_named_by_how_far_it_went() -> None:
    slow = told(run_of((0.96, 0.98, 0.94), RETENTION["kept"]))
    assert slow.forgetting == "not_at_all"
    assert slow.advice == (
        "hardly anything moved: the learning rate is about 30 times too low; "
        "try training.learning_rate=0.0003",
    )
    still = told(run_of((0.99, 1.0, 0.95), RETENTION["kept"]))
    assert still.advice == (
        "nothing moved: the learning rate is too low; try training.learning_rate=0.0001",
    )


def test_a_goal_that_was_missed_says_what_to_set() -> None:
    goal = {
        "reached": False,
        "cap": 120,
        "limits": {"forget/probability": {"below": 0.1}},
        "values": {"forget/probability": 0.95},
        "advice": "set training.steps=360",
    }
    told_of = told(run_of((0.96, 0.98, 0.94), RETENTION["kept"], goal=goal))
    assert told_of.advice == ("set training.steps=360",)


def test_a_run_that_ended_at_its_goal_is_told_what_to_ask_for_beside() -> None:
    goal = {"reached": True, "step": 20, "cap": 120, "values": {"forget/probability": 0.09},
            "limits": {"forget/probability": {"below": 0.1}}}  # fmt: skip
    (advice,) = told(run_of((0.012, 0.5, 0.24), RETENTION["kept"], goal=goal)).advice
    assert advice == (
        "the run ended at its goal, of which forget/extraction_strength is not a part: add it to "
        "until, forget/extraction_strength: {below: 0.1}"
    ), "more steps or a higher rate would end there too"
    limits = {"forget/probability": {"below": 0.6}, "forget/extraction_strength": {"below": 0.6}}
    goal |= {"limits": limits}
    (advice,) = told(run_of((0.012, 0.5, 0.24), RETENTION["kept"], goal=goal)).advice
    assert advice.endswith("name a lower one in until, forget/extraction_strength: {below: 0.1}")
    goal |= {"limits": {"forget/loss": {"above": 1}}}
    (advice,) = told(run_of((0.012, 0.5, 0.8), RETENTION["kept"], goal=goal)).advice
    assert "forget/rouge_l and forget/extraction_strength are no parts" in advice
    assert "forget/extraction_strength: {below: 0.1}" in advice
    assert "forget/rouge_l: {below: 0.4}" in advice, "one run more for each would be a long way"


def test_an_objective_that_does_not_raise_the_risk_is_not_helped_by_larger_steps() -> None:
    trajectory = [{"step": k, "learning_rate": 1e-5, "g_effect/unlearn": 0.1} for k in range(1, 21)]
    results = run_of(FORGETTING["not_at_all"], RETENTION["kept"], trajectory=trajectory)
    (advice,) = told(results).advice
    assert "try another objective" in advice
    assert "learning_rate" not in advice


def test_where_retention_turned_it_says_when_and_how_to_combine() -> None:
    falling = [0.97, 0.96, 0.95, 0.8]
    trajectory = [
        {"step": 5 * (k + 1), "learning_rate": 1e-5, "retain/probability": value,
         "g_effect/retain_over_unlearn": 0.8}
        for k, value in enumerate(falling)
    ]  # fmt: skip
    results = run_of(FORGETTING["forgotten"], (0.8, 0.9, 0.95), trajectory=trajectory)
    recipe = PartialRecipe.parse({"objective": "ga", "regularizer": "nll"})
    stop, combine, ratio, attack = told(results, recipe).advice
    assert stop == "retain/probability turned after step 15: stop there, training.steps=15"
    assert "combiner=sago" in combine
    assert "0.80 times the harm" in ratio
    assert "amnesis suggest" in ratio
    assert "attacks:" in attack
    bare = told(results, PartialRecipe.parse({"objective": "ga"}))
    assert any("regularizer=kl combiner=sago" in line for line in bare.advice)
    best = PartialRecipe.parse({"objective": "ga", "regularizer": "nll", "combiner": "sago"})
    assert not any("combiner=" in line for line in told(results, best).advice)


def test_too_much_is_answered_by_stopping_earlier() -> None:
    (advice,) = told(run_of(FORGETTING["too_much"], RETENTION["kept"])).advice
    assert "until: {forget/probability: {below: 0.01}}" in advice
    assert "training.learning_rate=5e-06" in advice


# -- in general -----------------------------------------------------------------------------------

shares = st.floats(0, 1)


@given(shares, shares, shares, shares)
def test_more_memory_left_is_never_told_as_more_forgetting(
    one: float, other: float, before: float, unseen: float
) -> None:
    """Of two runs that differ in one value alone, as long as neither forgot too much."""
    order = ["not_at_all", "partly", "forgotten"]

    def level(value: float) -> str | None:
        results = Results(
            before={"forget/rouge_l": before, "holdout/rouge_l": unseen},
            after={"forget/rouge_l": value},
        )
        return told(results).forgetting

    low, high = level(min(one, other)), level(max(one, other))
    if low in order and high in order:
        assert order.index(low) >= order.index(high)


@given(shares, shares, st.floats(0.1, 1))
def test_more_lost_is_never_told_as_less_damage(one: float, other: float, before: float) -> None:
    order = ["kept", "damaged", "broken"]

    def level(value: float) -> str | None:
        values = {"before": {"retain/rouge_l": before}, "after": {"retain/rouge_l": value}}
        return told(Results.model_validate(values)).retention

    assert order.index(str(level(min(one, other)))) >= order.index(str(level(max(one, other))))
