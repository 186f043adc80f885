"""Two real processes that do not fit together, or of which one is lost, end in words."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
from tests.end_to_end.ranks import launched, said

PATIENCE = 120


@pytest.fixture(scope="module")
def children() -> Any:
    """Processes that start with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["amnesis.runs.run", "amnesis.cli.run", "tests.end_to_end.ranks"]
    )
    return context


@pytest.fixture
def line(tiny_folder: Path, qa_rows: Any, write_rows: Any, tmp_path: Path) -> list[str]:
    """The command line of a run, whose files are in ``tmp_path``."""
    files = write_rows(forget=qa_rows[:4], retain=qa_rows[4:], other=qa_rows[1:5])
    recipe = {
        "model": str(tiny_folder),
        "objective": "npo",
        "regularizer": "kl",
        "combiner": "gru",
        "benchmark": {"name": "own", **{name: str(files[name]) for name in ("forget", "retain")}},
        "training": {"steps": 4, "batch_size": 2, "save_every": 2},
        "evaluate": {"metrics": ["probability"], "bootstrap": 0},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return ["run", str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]


def codes(ranks: list[Any]) -> list[int]:
    deadline = time.monotonic() + PATIENCE
    for rank in ranks:
        rank.join(max(0.0, deadline - time.monotonic()))
    return [rank.exitcode for rank in ranks]


def test_ranks_with_other_rows_of_one_path_are_refused(
    children: Any, line: list[str], tmp_path: Path
) -> None:
    """Each machine has a file of that name, and the files differ."""
    places = [tmp_path / "machine-0", tmp_path / "machine-1"]
    for place, rows in zip(places, ("forget", "other"), strict=True):
        place.mkdir()
        (place / "rows.jsonl").write_bytes((tmp_path / f"{rows}.jsonl").read_bytes())
    ranks = launched(children, [[*line, "benchmark.forget=rows.jsonl"]] * 2, tmp_path, places)
    assert codes(ranks) == [2, 2]
    for rank in range(2):
        (words,) = said(tmp_path, rank)
        assert words.startswith("error: the data of this run differs between the processes")
    assert not (tmp_path / "out").exists()


def test_ranks_with_other_recipes_are_refused(
    children: Any, line: list[str], tmp_path: Path
) -> None:
    ranks = launched(children, [line, [*line, "seed=1"]], tmp_path)
    assert codes(ranks) == [2, 2]
    for rank in range(2):
        assert said(tmp_path, rank)[0].startswith("error: the recipe differs between the processes")


@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_is_lost_takes_the_other_along_in_one_line(
    children: Any, line: list[str], tmp_path: Path, lost: int
) -> None:
    ranks = launched(children, [[*line, "training.steps=100000"]] * 2, tmp_path)
    deadline = time.monotonic() + PATIENCE
    while not list((tmp_path / "out").glob("checkpoints/0*/complete.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ranks[lost].kill()
    assert codes(ranks)[1 - lost] == 2
    (words,) = [line for line in said(tmp_path, 1 - lost) if "error" in line]
    assert words.startswith("error: another process of this run is gone (")
    assert words.endswith("; see what it said, and go on with --resume")


def test_a_run_is_gone_on_with_by_as_many_processes(
    children: Any, line: list[str], tmp_path: Path
) -> None:
    assert codes(launched(children, [line] * 2, tmp_path)) == [0, 0]
    out = tmp_path / "out"
    (out / "results.json").unlink()
    (out / "checkpoints" / "fitted.json").unlink()
    assert codes(launched(children, [[*line, "--resume"]], tmp_path)) == [2]
    (words,) = [line for line in said(tmp_path, 0) if "error" in line]
    assert "was written by a run on 2 processes, not 1" in words
