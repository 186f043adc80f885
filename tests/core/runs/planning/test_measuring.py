"""``amnesis run RECIPE --check --measure``: two real steps, of which nothing is left."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from amnesis.cli.app import main


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path, qa_rows: Any) -> Path:
    file = tmp_path / "recipe.yaml"
    document = {
        "model": str(tiny_folder),
        "objective": "ga",
        "regularizer": "nll",
        "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
        "training": {"steps": 50, "batch_size": 2, "save_every": 1, "learning_rate": "auto"},
    }
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


def test_a_check_says_memory_and_measured_time_and_writes_nothing(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(recipe), "--check", "--measure", "--device", "cpu"]) == 0
    said = " ".join(capsys.readouterr().out.split())  # lines are as long as the terminal is wide
    assert re.search(r"M parameters, about \d+ MiB at the highest, in the .* MiB weights", said)
    assert re.search(r"measured in 2 steps.* for 50 steps", said)
    assert sorted(tmp_path.rglob("*")) == there


def test_measure_without_check_is_refused(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(recipe), "--measure"]) == 2
    assert "--measure goes with --check" in capsys.readouterr().err


def test_a_procedure_has_no_steps_to_measure(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    del document["objective"], document["regularizer"]
    document |= {"procedure": "task_vector", "training": {"steps": 2}}
    recipe.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert main(["run", str(recipe), "--check", "--measure"]) == 2
    assert "--measure: a procedure" in " ".join(capsys.readouterr().err.split())
