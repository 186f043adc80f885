"""Results: one record for every ``results.json``, read as it was written, and refused in words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from amnesis.contracts import Evaluation
from amnesis.errors import DataError
from amnesis.runs.results import Results, environment, write_examples

# Each as an earlier version wrote it.
RUN: dict[str, Any] = {
    "schema": "amnesis.results/1",
    "before": {"forget/probability": 0.98765, "lm_eval/mmlu/acc": 0.25},
    "after": {"forget/probability": 1e-300, "lm_eval/mmlu/acc": 0.0},
    "retrained": {"forget/probability": 0.1 + 0.2},
    "intervals": {"before": {"forget/probability": [0.9, 1.0]}, "after": {}, "retrained": {}},
    "sets": {"forget": "0f" * 16, "retain": "1e" * 16},
    "trajectory": [
        {"step": 1, "forget/loss": -2.5, "learning_rate": 1e-05},
        {"step": 3, "forget/loss": -3.0, "forget/probability": 0.5},
    ],
    "attacks": {"relearning(steps=3)": {"before": {"forget/probability@1": 1.0}, "after": {}}},
    "lm_eval": {"before": {"mmlu/acc": 0.25}, "after": {"mmlu/acc": 0.0}},
    "steps": 3,
    "seconds": 12.34,
    "data": {
        "forget": {"examples": 4, "truncated": 0},
        "retain": {"examples": 4, "truncated": 1, "also_in_forget": 2},
    },
    "notes": ["before: «é» could not be evaluated"],
    "environment": {"python": "3.11.9", "device": "cpu", "threads": 2, "amnesis": "0.1.0"},
}
FINETUNING: dict[str, Any] = {
    "schema": "amnesis.results/1",
    "trajectory": [{"step": 1, "forget/loss": 2.5}],
    "steps": 1,
    "seconds": 3.0,
    "data": {"train": {"examples": 8, "duplicates": 0}},
    "notes": [],
    "environment": {"python": "3.11.9", "device": "cpu", "threads": 2},
}
EVALUATION: dict[str, Any] = {
    "schema": "amnesis.results/1",
    "after": {"forget/probability": 0.5},
    "intervals": {"after": {"forget/probability": [0.25, 0.75]}},
    "notes": ["metric rouge_l has no value"],
    "sets": {"forget": "0f" * 16},
    "model": "runs/one/model",
    "benchmark": {"name": "own", "forget": "forget.jsonl", "retain": "retain.jsonl"},
}
WRITTEN = {"run": RUN, "finetuning": FINETUNING, "evaluation": EVALUATION}


def exactly(document: Any) -> str:
    """Return a document as text, in which 1 is not 1.0."""
    return json.dumps(document, sort_keys=True)


def stored(folder: Path, document: Any) -> Path:
    (folder / "results.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


# -- read and written -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_an_earlier_version_wrote_is_read_unchanged_and_written_back_equal(
    kind: str, tmp_path: Path
) -> None:
    document = WRITTEN[kind]
    results = Results.read(stored(tmp_path, document))
    for key, value in document.items():
        attribute = getattr(results, "schema_" if key == "schema" else key)
        assert json.loads(json.dumps(attribute)) == value, key
    (tmp_path / "again").mkdir()
    results.write(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "results.json").read_text(encoding="utf-8"))
    assert written == document
    assert exactly(written) == exactly(document)


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_is_written_is_read_back_equal(kind: str, tmp_path: Path) -> None:
    results = Results.read(stored(tmp_path, WRITTEN[kind]))
    results.write(tmp_path)
    assert Results.read(tmp_path) == results
    assert Results.read(tmp_path / "results.json") == results  # the file itself too
    assert Results.model_validate(results.document()) == results


def test_what_was_not_found_is_not_in_the_file(tmp_path: Path) -> None:
    Results(after={"forget/probability": 0.5}).write(tmp_path)
    document = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert document["schema"] == "amnesis.results/1"
    assert document["after"] == {"forget/probability": 0.5}
    assert not {"before", "retrained", "steps", "seconds", "model", "benchmark"} & set(document)
    assert None not in document.values()


def test_what_a_later_version_adds_is_kept(tmp_path: Path) -> None:
    later = {
        **RUN,
        "schema": "amnesis.results/2",
        "energy": {"joules": 3.5, "by": ["gpu", 0]},
        "peer": None,
    }
    Results.read(stored(tmp_path, later)).write(tmp_path)
    document = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert document["energy"] == {"joules": 3.5, "by": ["gpu", 0]}
    assert document["schema"] == "amnesis.results/2"


def test_it_cannot_be_changed() -> None:
    results = Results(steps=3)
    with pytest.raises(ValueError, match="frozen"):
        results.steps = 4  # type: ignore[misc]


def test_nothing_that_json_cannot_hold_is_written(tmp_path: Path) -> None:
    stored(tmp_path, RUN)
    with pytest.raises(ValueError, match="JSON"):
        Results(notes=["x"]).model_copy(update={"seconds": math.nan}).write(tmp_path)
    assert Results.read(tmp_path).seconds == RUN["seconds"]


# -- phases ---------------------------------------------------------------------------------------


def test_the_phases_are_those_there_are_in_order() -> None:
    assert list(Results.model_validate(RUN).phases()) == ["before", "after", "retrained"]
    assert Results.model_validate(RUN).phases()["after"] == RUN["after"]
    assert Results.model_validate(EVALUATION).phases() == {"after": EVALUATION["after"]}
    assert Results.model_validate(FINETUNING).phases() == {}
    assert Results(after={}).phases() == {"after": {}}


def test_they_are_put_together_from_evaluations_and_attacks() -> None:
    before = Evaluation(
        values={"forget/probability": 0.9, "lm_eval/mmlu/acc": 0.3},
        intervals={"forget/probability": (0.8, 1.0)},
        data={"forget": "aa"},
    )
    after = Evaluation(values={"forget/probability": 0.1}, data={"forget": "aa", "facts": "bb"})
    results = Results.of(
        {"before": before, "after": after},
        {"relearning": {"after": {"forget/probability": 0.4}}},
        notes=["said"],
        steps=7,
        trajectory=[{"step": 7, "forget/loss": 1.5}],
    )
    assert results.before == before.values
    assert results.after == after.values
    assert results.retrained is None
    assert results.intervals == {"before": {"forget/probability": (0.8, 1.0)}, "after": {}}
    assert results.sets == {"forget": "aa", "facts": "bb"}
    assert results.attacks == {"relearning": {"after": {"forget/probability": 0.4}}}
    assert results.lm_eval == {"before": {"mmlu/acc": 0.3}}
    assert results.notes == ["said"]
    assert results.steps == 7
    assert results.trajectory == [{"step": 7, "forget/loss": 1.5}]


# -- refused --------------------------------------------------------------------------------------

HUGE = 10**400  # JSON can write it, and no float holds it

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "values that are a list": ({"after": [0.5]}, "after: "),
    "a value in words": ({"after": {"forget/probability": "0.5"}}, "after.forget/probability: "),
    "a value that is true": ({"before": {"a": True}}, "before.a: "),
    "a value that is nothing": ({"retrained": {"a": None}}, "retrained.a: "),
    "a value that is not a number": ({"after": {"a": math.nan}}, "after.a: "),
    "a value without end": ({"after": {"a": math.inf}}, "after.a: "),
    "a value that no float holds": ({"after": {"a": HUGE}}, "after.a: "),
    "an interval of one end": ({"intervals": {"after": {"a": [0.1]}}}, "intervals.after.a.1: "),
    "an interval in words": ({"intervals": {"after": {"a": [0, "1"]}}}, "intervals.after.a.1: "),
    "a trajectory that is no list": ({"trajectory": {"step": 1}}, "trajectory: "),
    "a trajectory of numbers": ({"trajectory": [1.0]}, "trajectory.0: "),
    "a step in words": ({"trajectory": [{"step": 1}, {"step": "2"}]}, "trajectory.1.step: "),
    "a step that no float holds": ({"trajectory": [{"step": HUGE}]}, "trajectory.0.step: "),
    "a logged value that is true": (
        {"trajectory": [{"step": 1, "forget/loss": True}]}, "trajectory.0.forget/loss: "),
    "values without their step": ({"trajectory": [{"forget/loss": 1.0}]}, "trajectory.0"),
    "an attack's value in words": (
        {"attacks": {"x": {"after": {"a": "1"}}}}, "attacks.x.after.a: "),
    "a task's value that is true": ({"lm_eval": {"after": {"mmlu/acc": True}}}, "lm_eval.after.mmlu/acc: "),
    "steps in words": ({"steps": "3"}, "steps: "),
    "steps that are true": ({"steps": True}, "steps: "),
    "half a step": ({"steps": 2.5}, "steps: "),
    "steps that no float holds": ({"steps": HUGE}, "steps: "),
    "seconds that are true": ({"seconds": True}, "seconds: "),
    "seconds that no float holds": ({"seconds": HUGE}, "seconds: "),
    "seconds that are not a number": ({"seconds": math.nan}, "seconds: "),
    "a count in words": ({"data": {"forget": {"examples": "4"}}}, "data.forget.examples: "),
    "a count that is true": ({"data": {"forget": {"examples": True}}}, "data.forget.examples: "),
    "a digest that is a number": ({"sets": {"forget": 3}}, "sets.forget: "),
    "notes that are one text": ({"notes": "said"}, "notes: "),
    "a note that is a number": ({"notes": ["said", 3]}, "notes.1: "),
    "a schema that is a number": ({"schema": 1}, "schema: "),
    "a model that is a number": ({"model": 1}, "model: "),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_by_file_and_key(name: str, tmp_path: Path) -> None:
    change, said = WRONG[name]
    file = stored(tmp_path, {**RUN, **change}) / "results.json"
    with pytest.raises(DataError) as raised:
        Results.read(tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{file}: ")
    assert said in message
    assert "\n" not in message
    assert len(message) < 400


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    stored(tmp_path, {**RUN, "steps": "3", "after": {"a": None}})
    with pytest.raises(DataError, match="2 problems") as raised:
        Results.read(tmp_path)
    assert "- steps: " in str(raised.value)
    assert "- after.a: " in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "not a results file, but \\[1, 2\\]"),
        ("3", "not a results file, but 3"),
        ('{"after": ', "not JSON that can be read"),
        ("", "not JSON that can be read"),
        ("[" * 100_000, "not JSON that can be read"),
        ("\xff", "not JSON that can be read"),
    ],
    ids=["a list", "a number", "cut off", "empty", "nested", "not UTF-8"],
)
def test_what_is_no_results_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "results.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=said) as raised:
        Results.read(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / 'results.json'}: ")


def test_where_there_are_none_it_says_what_to_give(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "nowhere.json"):
        with pytest.raises(DataError, match=r"there is no results.json here; give a run's"):
            Results.read(path)


# -- beside them ----------------------------------------------------------------------------------


def test_the_examples_of_every_phase_are_one_table(tmp_path: Path) -> None:
    from pyarrow import parquet

    def record(row: int, value: float) -> dict[str, Any]:
        return {"set": "forget", "row": row, "metric": "probability", "value": value}

    evaluations = {
        "before": Evaluation(examples=[record(0, 0.5), record(1, 0.75)]),
        "after": Evaluation(examples=[record(0, 0.25)]),
    }
    write_examples(tmp_path, evaluations)  # type: ignore[arg-type]
    assert parquet.read_table(tmp_path / "examples.parquet").to_pylist() == [
        {"phase": "before", **record(0, 0.5)},
        {"phase": "before", **record(1, 0.75)},
        {"phase": "after", **record(0, 0.25)},
    ]


def test_without_examples_there_is_no_table(tmp_path: Path) -> None:
    write_examples(tmp_path, {"after": Evaluation(values={"a": 1.0})})
    assert list(tmp_path.iterdir()) == []


def test_the_environment_names_versions_and_device() -> None:
    found = environment("cuda:1")
    assert found["device"] == "cuda:1"
    assert {"python", "platform", "threads", "amnesis", "torch", "transformers"} <= set(found)
    assert Results(environment=found).environment == found
