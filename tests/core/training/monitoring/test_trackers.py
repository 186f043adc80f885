"""Trackers that transformers knows are told a run's numbers, and can stop nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers.integrations import integration_utils
from transformers.trainer_callback import TrainerCallback

import amnesis
from amnesis.errors import RecipeError


class Stub(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """A tracker as transformers' own are: told of the beginning, of each log, and of the end."""

    told: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.told.append(("begin", args.run_name))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.told.append((state.global_step, logs))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.told.append(("end", state.global_step))


class Offline(Stub):
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        raise ConnectionError("no route to the tracker")


class Missing(TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        raise RuntimeError("Missing requires missing to be installed. Run `pip install missing`.")


@pytest.fixture(autouse=True)
def trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    known = integration_utils.INTEGRATION_TO_CALLBACK
    for name, tracker in (("stub", Stub), ("offline", Offline), ("missing", Missing)):
        monkeypatch.setitem(known, name, tracker)
    monkeypatch.setattr(Stub, "told", [])


@pytest.fixture
def made(tiny_folder: Path, qa_rows: Any) -> dict[str, Any]:
    return {
        "model": str(tiny_folder),
        "objective": "ga",
        "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
        "training": {"steps": 2, "batch_size": 4},
        "evaluate": {"metrics": ["probability"], "bootstrap": 0},
        "report_to": ["stub"],
    }


def test_a_tracker_is_told_before_along_and_after(made: dict[str, Any], tmp_path: Path) -> None:
    results = amnesis.run(made, tmp_path / "out", device="cpu").results
    begin, before, one, two, after, end = Stub.told
    assert begin == ("begin", "ga")
    assert before == (0, results.before)
    assert [step for step, _ in (one, two)] == [1, 2]
    assert "forget/loss" in one[1]
    assert after == (2, results.after)
    assert end == ("end", 2)
    numbers = [value for _, logs in (before, one, two, after) for value in logs.values()]
    assert all(isinstance(value, int | float) for value in numbers), "no text leaves the machine"


def test_a_tracker_that_fails_is_a_note(made: dict[str, Any], tmp_path: Path) -> None:
    made["report_to"] = ["offline", "stub"]
    results = amnesis.run(made, tmp_path / "out", device="cpu").results
    assert results.steps == 2
    assert [note for note in results.notes if "offline" in note] == [
        "offline was told nothing further: no route to the tracker"
    ]
    assert Stub.told[-1] == ("end", 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "missing cannot be used here: Missing requires missing to be installed"),
        ("wandbb", "no tracker is called 'wandbb'; did you mean 'wandb'"),
        ("tensorboard", "TensorBoard's files are always written"),
    ],
)
def test_what_cannot_be_told_is_said_before_a_run(
    made: dict[str, Any], tmp_path: Path, name: str, words: str
) -> None:
    made["report_to"] = [name]
    with pytest.raises(RecipeError) as refused:
        amnesis.run(made, tmp_path / "out", device="cpu")
    assert "report_to" in str(refused.value)
    assert words in str(refused.value)
    assert not (tmp_path / "out").exists()
