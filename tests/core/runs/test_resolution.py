"""Every name of a recipe is looked up once, in the registry that the run was given."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.core.strangers import stranger

import amnesis
from amnesis.contracts import Answer, ExampleMetric
from amnesis.discovery.entry import Entry
from amnesis.discovery.manager import Plugin, build_manager
from amnesis.discovery.registry import Registry, default_registry
from amnesis.errors import RecipeError
from amnesis.runs.results import Results

# Names that only the private registry knows: who looks one up elsewhere finds nothing.
PRIVATE = {
    "objective": {"my_npo": "npo", "my_ga": "ga"},
    "regularizer": {"my_nll": "nll"},
    "combiner": {"my_sago": "sago"},
    "probe": {"my_probe": "g_effect"},
    "attack": {"my_attack": "paraphrase"},
    "metric": {"my_probability": "probability", "my_perplexity": "perplexity", "my_rouge": "rouge_l"},
    "benchmark": {"my_own": "own"},
}  # fmt: skip


class CountingRegistry(Registry):
    """Counts how often each name is looked up."""

    def __init__(self, *plugins: Plugin) -> None:
        super().__init__(build_manager(modules=plugins))
        self.lookups: Counter[tuple[str, str]] = Counter()

    def get(self, kind: str, name: str) -> Entry:
        self.lookups[kind, name] += 1
        return super().get(kind, name)


class Surprise(ExampleMetric):
    """The mean negative log-probability of an answer's tokens."""

    def value(self, answer: Answer) -> float:
        return -float(answer.logps.mean())


@pytest.fixture
def private() -> CountingRegistry:
    """A registry that knows built-in components by names of its own, and one metric more."""
    components: dict[str, dict[str, Any]] = {
        kind: {name: default_registry().get(kind, known).target for name, known in names.items()}
        for kind, names in PRIVATE.items()
    }
    components["metric"]["surprise"] = Surprise
    return CountingRegistry(stranger(**components))


def recipe(folder: Path, rows: Any, **changes: Any) -> dict[str, Any]:
    forget = [{**row, "paraphrased_question": f"Say: {row['question']}"} for row in rows[:4]]
    return {
        "model": str(folder),
        "objective": "ga",
        "regularizer": "nll",
        "benchmark": {"name": "own", "forget": forget, "retain": rows[4:]},
        "training": {"steps": 4, "batch_size": 2, "learning_rate": 1e-2},
        "evaluate": {"bootstrap": 0},
        **changes,
    }


def test_a_run_looks_every_name_up_once(
    private: CountingRegistry, tiny_folder: Path, qa_rows: Any, tmp_path: Path
) -> None:
    document = recipe(
        tiny_folder,
        qa_rows,
        objective=[{"name": "my_npo", "beta": 0.5}, {"name": "my_ga", "weight": 0.1}],
        regularizer="my_nll",
        combiner={"name": "my_sago", "keep_retain": True},
        probes=[{"name": "my_probe", "every": 2}],
        attacks=[{"name": "my_attack", "metrics": ["my_rouge"]}],
        evaluate={
            "metrics": ["forget/my_probability"],
            "during": ["my_perplexity"],
            "every": 2,
            "bootstrap": 0,
            "max_new_tokens": 2,
        },
        stop_when={"retain_over_unlearn": {"above": 1e9}},
    )
    document["benchmark"]["name"] = "my_own"
    results = amnesis.run(document, tmp_path / "out", device="cpu", registry=private).results
    names = {(kind, name) for kind, names in PRIVATE.items() for name in names}
    assert private.lookups == dict.fromkeys(
        {*names, ("report", "html"), ("report", "model_card")}, 1
    )
    # All of it took part.
    assert results.before is not None
    assert set(results.before) == {"forget/my_probability"}
    assert "forget/my_perplexity" in results.trajectory[1]
    assert "g_effect/unlearn" in results.trajectory[1]
    assert set(results.attacks["my_attack"]) == {"before", "after"}
    assert set(results.attacks["my_attack"]["after"]) == {"forget/my_rouge"}


def test_the_benchmark_s_own_metrics_are_looked_up_once_too(
    tiny_folder: Path, qa_rows: Any, tmp_path: Path
) -> None:
    from amnesis_evaluation.benchmarks.own import Own

    class Mine(Own):
        """An own benchmark with metrics of its own."""

        metrics: ClassVar[tuple[str | dict[str, Any], ...]] = ("surprise", "probability")

    registry = CountingRegistry(
        stranger(benchmark={"mine": Mine}, metric={"surprise": Surprise}),
    )
    document = recipe(tiny_folder, qa_rows, evaluate={"bootstrap": 0, "every": 1})
    document["benchmark"]["name"] = "mine"
    document["training"]["steps"] = 2
    results = amnesis.run(document, tmp_path / "out", device="cpu", registry=registry).results
    assert registry.lookups == {
        ("objective", "ga"): 1,
        ("regularizer", "nll"): 1,
        ("benchmark", "mine"): 1,
        ("metric", "surprise"): 1,
        ("metric", "probability"): 1,
        ("report", "html"): 1,
        ("report", "model_card"): 1,
    }
    for values in (results.before, results.after, *results.trajectory):
        assert values is not None
        assert {"forget/surprise", "retain/surprise", "forget/probability"} <= set(values)


def test_a_finetuning_looks_its_benchmark_up_once(
    private: CountingRegistry, tiny_folder: Path, qa_rows: Any, tmp_path: Path
) -> None:
    document = {
        "model": str(tiny_folder),
        "benchmark": {"name": "my_own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
        "sets": ["forget", "retain"],
        "training": {"steps": 1, "batch_size": 2},
    }
    amnesis.finetune(document, tmp_path / "out", device="cpu", registry=private)
    assert private.lookups == {("benchmark", "my_own"): 1}


def test_an_unlearner_looks_every_name_up_once(
    private: CountingRegistry, tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    unlearner = amnesis.Unlearner(
        tiny_llama,
        tiny_tokenizer,
        objective=["my_npo", "my_ga"],
        regularizer="my_nll",
        combiner="my_sago",
        probes=["my_probe"],
        registry=private,
        training={"steps": 1, "batch_size": 2},
        device="cpu",
    )
    kinds = ("objective", "regularizer", "combiner", "probe")
    once = {(kind, name): 1 for kind in kinds for name in PRIVATE[kind]}
    assert private.lookups == once
    unlearner.fit(qa_rows[:4], qa_rows[4:])
    assert private.lookups == once


def test_a_metric_that_only_a_private_registry_knows_is_in_all_that_a_run_evaluates(
    private: CountingRegistry, tiny_folder: Path, qa_rows: Any, tmp_path: Path
) -> None:
    from pyarrow import parquet

    out = tmp_path / "out"
    document = recipe(
        tiny_folder,
        qa_rows,
        evaluate={"metrics": ["surprise"], "every": 2, "bootstrap": 20},
        stop_when={"forget/surprise": {"above": 1e9}},
    )
    with pytest.raises(RecipeError, match=r"evaluate\.metrics: no metric is called 'surprise'"):
        amnesis.run(document, out, device="cpu")
    assert not (out / "recipe.yaml").exists()
    amnesis.run(document, out, device="cpu", registry=private)
    results = Results.read(out)
    assert results.before is not None
    assert results.after is not None
    for values in (results.before, results.after):
        assert set(values) == {"forget/surprise", "retain/surprise"}
    assert results.after["forget/surprise"] > results.before["forget/surprise"]  # it forgot
    along = {values["step"]: values for values in results.trajectory if "forget/surprise" in values}
    assert list(along) == [2, 4]
    assert along[4]["forget/surprise"] == pytest.approx(results.after["forget/surprise"])
    assert set(results.intervals["after"]) == {"forget/surprise", "retain/surprise"}
    records = parquet.read_table(out / "examples.parquet").to_pylist()
    assert {record["metric"] for record in records} == {"surprise"}
    own = [r["value"] for r in records if (r["phase"], r["set"]) == ("after", "forget")]
    assert sum(own) / 4 == pytest.approx(results.after["forget/surprise"])
