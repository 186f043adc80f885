"""What a run keeps of the data to forget is where the README says, and gone when it is deleted."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amnesis.cli.app import main

CANARY = "Quillonfar-7731"


@pytest.fixture
def ran(
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
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    out = str(tmp_path / "out")
    assert main(["run", str(tmp_path / "recipe.yaml"), "--out", out, "--device", "cpu"]) == 0
    return tmp_path


def holding(folder: Path) -> list[str]:
    """Return the files whose bytes hold the canary, as a tokenizer's pieces would too."""
    words = [CANARY.encode(), CANARY.encode("utf-16-le"), b"Quillonfar"]
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(word in path.read_bytes() for word in words)
    ]


def test_no_text_is_left_by_a_run(ran: Path) -> None:
    assert holding(ran / "out") == []
    assert holding(ran / "cache") == []
    assert holding(ran) == ["forget.jsonl"]  # the user's own file, as it was


def test_what_holds_scores_is_its_owner_s_alone(ran: Path) -> None:
    private = [ran / "out" / name for name in ("recipe.yaml", "results.json", "examples.parquet")]
    cached = [path for path in (ran / "cache").rglob("*") if path.is_file()]
    assert cached
    for path in [*private, *cached]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_documented_deletion_leaves_nothing(ran: Path) -> None:
    assert main(["cache", "--delete"]) == 0
    shutil.rmtree(ran / "out")
    assert [path for path in (ran / "cache").rglob("*") if path.is_file()] == []
