"""Before a weight is loaded: a limit on what nothing in the run gives is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.core.strangers import registry_with, stranger

import amnesis
from amnesis.contracts import Benchmark, Evaluation
from amnesis.discovery.manager import build_manager
from amnesis.discovery.registry import Registry
from amnesis.errors import AmnesisError, RecipeError
from amnesis.runs.preflight import Prepared, prepare
from amnesis.runs.recipe import Recipe

Check = Callable[..., Prepared]


@pytest.fixture
def check(tiny_folder: Path, qa_rows: Any) -> Check:
    """Return a function that checks a small recipe with changes."""

    def check(registry: Registry | None = None, **changes: Any) -> Prepared:
        recipe = {
            "model": str(tiny_folder),
            "objective": "npo",
            "regularizer": "nll",
            "combiner": "sago",
            "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
            **changes,
        }
        return prepare(Recipe.parse(recipe), device="cpu", registry=registry)

    return check


@pytest.mark.parametrize(
    ("limit", "options"),
    [
        ("forget/loss", {}),
        ("retain/loss", {}),
        ("gradients/cosine", {}),
        ("retain_over_unlearn", {"probes": ["g_effect"]}),
        ("g_effect/unlearn", {"probes": ["g_effect"]}),
        ("forget/probability", {"evaluate": {"every": 2}}),
    ],
)
def test_a_limit_on_what_the_run_gives_is_taken(
    check: Check, limit: str, options: dict[str, Any]
) -> None:
    check(stop_when={limit: {"above": 0.5}}, **options)


@pytest.mark.parametrize(
    ("limit", "options", "said"),
    [
        (
            "retain_over_unlearn",
            {},
            "gives 'retain_over_unlearn'; a probe does: probes: [g_effect]",
        ),
        ("g_effect/unlearn", {}, "gives 'g_effect/unlearn'; a probe does: probes: [g_effect"),
        ("forget/probability", {}, "gives 'forget/probability'; for a metric, evaluate it along"),
        ("nonsense", {"evaluate": {"every": 2}}, "nothing in this run gives 'nonsense'"),
        ("forget/loss", {"below": "x"}, "stop_when.forget/loss: below"),
    ],
)
def test_a_limit_on_what_nothing_gives_is_refused(
    check: Check, limit: str, options: dict[str, Any], said: str
) -> None:
    bound = {"below": options.pop("below", 0.5)}
    with pytest.raises(RecipeError) as raised:
        check(stop_when={limit: bound}, **options)
    assert said in str(raised.value)


def test_every_component_of_the_recipe_is_in_the_method(check: Check) -> None:
    prepared = check(
        probes=["g_effect", {"name": "g_effect", "every": 3}],
        attacks=["paraphrase"],
        evaluate={
            "metrics": ["forget/probability", "rouge_l"],
            "during": ["perplexity"],
            "every": 1,
        },
    )
    method = prepared.method
    assert [weighted.term.registered_name for weighted in method.forget.terms] == ["npo"]
    assert method.retain is not None
    assert [weighted.term.registered_name for weighted in method.retain.terms] == ["nll"]
    assert method.combiner is not None
    assert method.combiner.registered_name == "sago"
    assert [probe.every for probe in method.probes] == [5, 3]
    assert [attack.registered_name for attack in method.attacks] == ["paraphrase"]
    chosen = [(c.set_name, c.metric.registered_name, c.optional) for c in method.metrics or ()]
    assert chosen == [("forget", "probability", False), (None, "rouge_l", False)]
    assert [c.metric.registered_name for c in method.during or ()] == ["perplexity"]
    assert prepared.benchmark.registered_name == "own"


def test_the_benchmark_s_own_metrics_may_lack_what_they_need(check: Check) -> None:
    method = check().method
    assert method.metrics
    assert all(chosen.optional for chosen in method.metrics)
    assert method.during is None


class Odd(Benchmark):
    """Names a metric that nobody has."""

    metrics = ("unheard_of",)

    def sets(self) -> dict[str, list[dict[str, str]]]:
        return {name: [{"question": "?", "answer": "!"}] for name in ("forget", "retain")}

    def evaluate(self, subject: Any, settings: Any, progress: Any = None, **_: Any) -> Evaluation:
        return Evaluation()


def test_a_metric_of_the_benchmark_s_own_that_nobody_has_is_one_problem_of_all(
    check: Check,
) -> None:
    registry = registry_with(stranger(benchmark={"odd": Odd}))
    with pytest.raises(AmnesisError) as raised:
        check(registry, benchmark="odd", objective="gaa", model="./nowhere")
    for problem in ("'unheard_of'", "'gaa'", "./nowhere"):
        assert problem in str(raised.value)


def test_a_plugin_that_is_left_out_is_said_with_every_other_problem(check: Check) -> None:
    without = Registry(build_manager(blocked=["combiners", "objectives"]))
    with pytest.raises(RecipeError) as raised:
        check(without)
    said = str(raised.value)
    assert "no objective is called 'npo'" in said
    assert "no combiner is called 'sago'" in said
    assert "left out: plugin amnesis" in said


def test_what_truncation_leaves_is_said(check: Check) -> None:
    lines = check(template={"max_length": 24}).cost.lines()
    assert any(
        line.startswith("forget: ")
        and "4 examples are cut at their end (template.max_length 24" in line
        for line in lines
    )
    with pytest.raises(RecipeError, match=r"forget stream: set 'forget' has no usable example"):
        check(template={"max_length": 3})


def test_sizes_that_are_seldom_meant_are_said(check: Check) -> None:
    training = {"steps": 4, "batch_size": 3, "retain_batch_size": 6, "warmup_steps": 4}
    said = "\n".join(check(training=training, evaluate={"every": 5}).cost.lines())
    assert "draws 6 retain rows of 4: some of them twice; lower training.retain_batch_size" in said
    assert "forget rows of 4: some" not in said
    assert "never reaches its height: 4 warm-up steps, of 4" in said
    assert "evaluate.every 5: never, in 4 steps" in said
    plain = {"steps": 4, "batch_size": 4, "warmup_steps": 3}
    said = "\n".join(check(training=plain, evaluate={"every": 4}).cost.lines())
    assert not any(words in said for words in ("twice", "never"))


def test_what_an_evaluation_takes_is_said(check: Check) -> None:
    both = {"metrics": ["forget/rouge_l", "probability"], "max_new_tokens": 7}
    (line,) = [li for li in check(evaluate=both).cost.lines() if li.startswith("an evaluation")]
    assert line == "an evaluation: 8 rows scored, 4 answers of at most 7 tokens generated"
    few = {**both, "generate_rows": 3, "limit": 2}
    (line,) = [li for li in check(evaluate=few).cost.lines() if li.startswith("an evaluation")]
    assert line == "an evaluation: 4 rows scored, 2 answers of at most 7 tokens generated"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluate": {"metrics": ["holdout/probability"]}}, "no set is called 'holdout'"),
        ({"evaluate": {"metrics": ["mia_loss"]}}, "'mia_loss' needs the set 'holdout'"),
        ({"evaluate": {"retrained": "nowhere"}}, "evaluate.retrained: nowhere"),
        ({"evaluate": {"lm_eval": {"tasks": ["x"], "data": {"y": {}}}}}, "'y' is not among the"),
        ({"evaluate": {"lm_eval": {"tasks": ["arc_easy"]}}}, "arc_easy: "),
        (
            {"evaluate": {"lm_eval": {"tasks": ["arc_easy"], "data": {"arc_easy": {"a": "b"}}}}},
            "'arc_easy' reads the split 'test', but files are given for a",
        ),
        (
            {"evaluate": {"lm_eval": {"tasks": ["arc_easy"], "chat_template": True}}},
            "chat template",
        ),
    ],
)
def test_what_the_evaluation_would_refuse_is_refused(
    check: Check, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.load_dataset_builder", _unreachable)
    with pytest.raises(RecipeError) as raised:
        check(**changes)
    assert said in str(raised.value)


def _unreachable(*_: Any, **__: Any) -> None:
    raise ConnectionError("the hub is not there")


def test_weights_in_which_the_optimizer_fails_are_refused(check: Check, tiny_folder: Path) -> None:
    model = {"path": str(tiny_folder), "dtype": "fp16"}
    with pytest.raises(RecipeError, match="float16 weights do not train with adamw"):
        check(model=model)
    check(model=model, training={"optimizer": "sgd"})


def test_a_run_s_folder_is_the_model_in_it(check: Check, tiny_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "target"
    run.mkdir(parents=True)
    tiny_folder.rename(run / "model")
    assert check(model=str(run)).cost.parameters
    with pytest.raises(RecipeError, match=r"there is no such folder; in .*did you mean 'target'"):
        check(model=str(tmp_path / "runs" / "targt"))


def test_a_plugin_that_is_broken_is_said_once(check: Check, install: Any) -> None:
    from amnesis.discovery.manager import installed_entry_points

    broken = install("broken_methods", "1 / 0")
    registry = Registry(build_manager([*installed_entry_points(), *broken]))
    with pytest.raises(RecipeError) as raised:
        check(registry, objective="theirs", combiner="theirs")
    said = str(raised.value)
    assert "2 problems" in said
    assert said.count("plugin broken-methods 1.0") == 1
    assert said.splitlines()[-1].startswith("  note: plugin broken-methods")
    with pytest.raises(RecipeError) as raised:
        check(registry, objective={"name": "npo", "beta": -1})
    assert "broken-methods" not in str(raised.value), "it does not matter here"


def test_a_run_encodes_its_rows_once(
    tiny_folder: Path, qa_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the checks before it encoded is what it trains on."""
    from amnesis.data import examples

    encoded: list[str] = []
    add = examples._Encoder.add

    def watched(encoder: Any, rows: Any) -> int:
        encoded.append(encoder.name)
        return add(encoder, rows)

    monkeypatch.setattr(examples._Encoder, "add", watched)
    recipe = {
        "model": str(tiny_folder),
        "objective": "ga",
        "regularizer": "nll",
        "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
        "training": {"steps": 1, "batch_size": 2},
        "evaluate": {"metrics": [], "bootstrap": 0},
    }
    amnesis.run(recipe, tmp_path / "out", device="cpu")
    assert encoded == ["forget", "retain"]


@pytest.mark.parametrize(
    ("combiner", "training", "said"),
    [
        ("cone", {"optimizer": "adamw"}, "training.optimizer: cone divides by a scale of its own"),
        ("sago", {"momentum": 0.9}, "training.momentum is sgd's"),
    ],
)
def test_an_optimizer_that_does_not_suit_the_combiner_is_refused(
    check: Check, combiner: str, training: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError) as raised:
        check(combiner=combiner, training=training)
    assert said in str(raised.value)


def test_memory_is_that_of_the_optimizer_that_suits_the_combiner(check: Check) -> None:
    ways: list[dict[str, Any]] = [
        {"combiner": "sago"},  # AdamW's two moments
        {"combiner": "cone"},  # a mean by the optimizer, a scale by the combiner
        {"combiner": "sago", "training": {"optimizer": "sgd", "momentum": 0.9}},
        {"combiner": "cone", "training": {"momentum": 0.0}},
    ]
    adamw, cone, momentum, scale = (check(**way).cost.memory_gib for way in ways)
    assert adamw is not None
    assert momentum is not None
    assert cone == adamw > momentum == scale
