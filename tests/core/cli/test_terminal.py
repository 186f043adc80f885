"""What stands on standard output and on standard error, with a terminal and without."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amnesis.cli.app import main
from amnesis.cli.terminal import console, is_warning, print_notes, sorted_notes, spoken
from amnesis.progress import quietly

PATH = "/a/rather long/path/" + "that/no/line/of/eighty/columns/would/hold/" * 4


@pytest.fixture
def recipe(tiny_folder: Path, qa_rows: Any, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    document = {
        "model": str(tiny_folder),
        "objective": "ga",
        "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
        "training": {"steps": 3, "batch_size": 4},
        "evaluate": {"metrics": ["probability"], "bootstrap": 0, "every": 1},
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_without_a_terminal_a_run_has_lines_and_its_output_is_json(
    recipe: Path, tmp_path: Path
) -> None:
    """As ``nohup amnesis run … --json > results 2> log`` and a program that reads the results."""
    out = tmp_path / "out"
    words = [sys.executable, "-m", "amnesis", "run", str(recipe), "--out", str(out), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    document = json.loads(done.stdout)
    assert document["folder"] == str(out)
    assert document["steps"] == 3
    written = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert {key: value for key, value in document.items() if key != "folder"} == written
    lines = done.stderr.splitlines()
    assert lines
    first = lines[0].split(": ")
    assert first[-1].split()[1] == "of", "how far which work is"


def test_quietly_there_is_nothing_but_results(recipe: Path, tmp_path: Path, capfd: Any) -> None:
    assert main(["run", str(recipe), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    out, err = capfd.readouterr()
    assert "forget/probability" in out
    assert "note: " not in out
    assert "of 3" not in err


def test_a_path_is_never_folded(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("40", None):
        monkeypatch.setenv("COLUMNS", columns) if columns else monkeypatch.delenv("COLUMNS")
        console().print(f"everything is in {PATH}", soft_wrap=True)
        print_notes([f"delete them with: amnesis report {PATH}"])
        assert capsys.readouterr().out.count(PATH) == 2
    console().print(f"a sentence with {PATH}")
    assert PATH in capsys.readouterr().out, "without a terminal nothing at all is folded"


def test_a_table_without_a_terminal_is_not_cut(capsys: Any, monkeypatch: Any) -> None:
    from rich.table import Table

    monkeypatch.delenv("COLUMNS", raising=False)
    table = Table(*(f"a column of some width, number {k}" for k in range(12)))
    table.add_row(*(f"value {k}" for k in range(12)))
    console().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert sum("number 11" in line and "number 0" in line for line in lines) == 1


def test_notes_are_said_once_and_what_matters_first(capsys: Any) -> None:
    notes = [
        "evaluated on 8 rows",
        "before: 2 answers were cut",
        "after: 2 answers were cut",
        "evaluated on 8 rows",
        "the probe failed at step 3",
    ]
    print_notes(notes)
    assert capsys.readouterr().out.splitlines() == [
        "warning: the probe failed at step 3",
        "note: before and after: 2 answers were cut",
        "note: evaluated on 8 rows",
    ]
    with quietly():
        print_notes(notes)
    assert capsys.readouterr().out == ""


@given(
    st.lists(st.sampled_from(["x", "before: x", "after: x", "y failed", "a: b", "retrained: x"]))
)
def test_no_note_is_lost_or_said_twice(notes: list[str]) -> None:
    told = sorted_notes(notes)
    assert len(told) == len(set(told))
    texts = {note.rpartition(": ")[2] for note in notes}
    assert {note.rpartition(": ")[2] for note in told} == texts
    for phase in ("before", "after", "retrained"):
        assert any(phase in note for note in told) == (f"{phase}: x" in notes)
    ranks = [not is_warning(note) for note in told]
    assert ranks == sorted(ranks)


def test_what_is_logged_is_said_as_notes_are_and_libraries_keep_their_plans(capsys: Any) -> None:
    root, logger = logging.getLogger(), logging.getLogger("amnesis.training.somewhere")
    stranger = logging.StreamHandler(sys.stderr)  # as some library puts there by basicConfig
    root.addHandler(stranger)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with spoken():
                logger.warning("\x1b[31mtoo slow")
                with quietly():
                    logger.warning("not now")
                for module in ("transformers.modeling", "amnesis.data"):
                    warnings.warn_explicit(f"of {module}", FutureWarning, "f.py", 1, module)
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err == "warning: \\x1b[31mtoo slow\n"
        assert [str(one.message) for one in caught] == ["of amnesis.data"], "ours is a fault"
        logger.warning("afterwards")
        assert capsys.readouterr().err == "afterwards\n", "as whoever uses the library wants it"
    finally:
        root.removeHandler(stranger)
