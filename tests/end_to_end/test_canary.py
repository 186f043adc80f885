"""What a run keeps of the data to forget is where the README says, and gone when it is deleted."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from amnesis.cli.app import main

CANARY = "Quillonfar-7731"


@pytest.fixture(params=[True, False], ids=["answers", "no answers"])
def ran(
    request: pytest.FixtureRequest,
    tiny_folder: Path,
    qa_rows: list[dict[str, Any]],
    write_rows: Callable[..., dict[str, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The folder that holds a run's ``out`` and its ``cache``, over rows with a canary."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    secret = [{"question": f"Who is {CANARY}?", "answer": f"{CANARY} is a canary."}]
    files = write_rows(forget=[*secret, *qa_rows[:3]], retain=qa_rows[3:])
    recipe = {
        "model": str(tiny_folder),
        "objective": "npo",
        "regularizer": "kl",
        "probes": ["g_effect_sets"],
        "benchmark": {"name": "own", **{name: str(path) for name, path in files.items()}},
        "training": {"steps": 3, "batch_size": 2, "save_every": 1},
        "attacks": [{"name": "sampling", "samples": 1}],
        "evaluate": {"keep_answers": request.param},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    out = str(tmp_path / "out")
    assert main(["run", str(tmp_path / "recipe.yaml"), "--out", out, "--device", "cpu"]) == 0
    return tmp_path


def holding(folder: Path) -> list[str]:
    """Return the files that hold the canary, as a tokenizer's pieces would too, or compressed."""
    words = [CANARY.encode(), CANARY.encode("utf-16-le"), b"Quillonfar"]
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(word in unpacked(path) for word in words)
    ]


def unpacked(path: Path) -> bytes:
    if path.suffix != ".parquet":
        return path.read_bytes()
    return path.read_bytes() + str(parquet.read_table(path).to_pylist()).encode()


def kept(ran: Path) -> list[str]:
    """The files that keep texts where a run keeps any."""
    if not (ran / "out" / "answers.parquet").exists():
        return []
    samples = sorted((ran / "out").glob("tensorboard/*/answers/*"))
    return ["answers.parquet", "report.html", *(str(s.relative_to(ran / "out")) for s in samples)]


def test_texts_are_left_by_a_run_where_it_is_asked_to_and_nowhere_else(
    ran: Path, request: pytest.FixtureRequest
) -> None:
    asked = request.node.callspec.params["ran"]
    assert kept(ran)[:2] == (["answers.parquet", "report.html"] if asked else [])
    assert holding(ran / "out") == kept(ran)
    assert holding(ran / "cache") == []
    outside = [path for path in holding(ran) if not path.startswith("out/")]
    assert outside == ["forget.jsonl"]  # the user's own file, as it was


def test_one_command_deletes_them_and_leaves_the_rest(
    ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = (ran / "out" / "results.json").read_bytes()
    capsys.readouterr()
    assert main(["report", str(ran / "out"), "--delete-answers"]) == 0
    assert "are deleted" in capsys.readouterr().out
    assert holding(ran / "out") == []
    assert (ran / "out" / "report.html").is_file()
    assert not (ran / "out" / "answers.parquet").exists()
    assert (ran / "out" / "results.json").read_bytes() == scores


def test_what_holds_scores_is_its_owner_s_alone(ran: Path) -> None:
    names = ["recipe.yaml", "results.json", "examples.parquet", "report.html", *kept(ran)]
    private = [ran / "out" / name for name in names]
    cached = [path for path in (ran / "cache").rglob("*") if path.is_file()]
    assert cached
    for path in [*private, *cached]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_documented_deletion_leaves_nothing(ran: Path) -> None:
    assert main(["cache", "--delete"]) == 0
    shutil.rmtree(ran / "out")
    assert [path for path in (ran / "cache").rglob("*") if path.is_file()] == []
