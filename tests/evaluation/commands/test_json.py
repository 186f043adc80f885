"""``--json``: the results on standard output and nothing else there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amnesis.cli.app import main


@pytest.fixture
def sets(qa_rows: Any, tmp_path: Path) -> list[str]:
    words = []
    for name, rows in (("forget", qa_rows[:4]), ("retain", qa_rows[4:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        words += [f"--{name}", str(tmp_path / f"{name}.json")]
    return words


def printed(capfd: Any, *words: str) -> Any:
    capfd.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_every_command_that_measures_prints_json(
    tiny_folder: Path, sets: list[str], tmp_path: Path, capfd: Any
) -> None:
    model, out = str(tiny_folder), tmp_path / "out"
    benchmark = {"name": "own", "forget": sets[1], "retain": sets[3]}
    finetuning = {"model": model, "benchmark": benchmark, "sets": ["forget"],
                  "training": {"steps": 1}}  # fmt: skip
    recipe = {"model": model, "benchmark": benchmark, "objective": "ga", "training": {"steps": 1},
              "evaluate": {"metrics": ["probability"]}}  # fmt: skip
    for name, document in (("finetuning", finetuning), ("run", recipe)):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(document), encoding="utf-8")
    finetuned = printed(
        capfd, "finetune", str(tmp_path / "finetuning.yaml"), "--out", str(tmp_path / "made")
    )
    assert (finetuned["steps"], finetuned["folder"]) == (1, str(tmp_path / "made"))
    run = printed(capfd, "run", str(tmp_path / "run.yaml"), "--out", str(out))
    assert set(run["after"]) == {"forget/probability", "retain/probability"}
    assert printed(capfd, "evaluate", str(out), "--no-cache")["values"] == pytest.approx(
        run["after"]
    )
    assert len(printed(capfd, "compare", str(out))["rows"]) == 1
    probe = printed(
        capfd, "probe", model, *sets, "--objectives", "ga", "--out", str(tmp_path / "p")
    )
    assert probe["folder"] == str(tmp_path / "p")
    words = ["--candidates", "ga+nll", "--steps", "2", "--learning-rate", "0.05"]
    suggested = printed(capfd, "suggest", model, *sets, *words)
    assert "ranking" in suggested
