"""``amnesis cache``: what is kept between runs is listed, and deleted when that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from tests.core.cli.lines import one_line

from amnesis.cli.app import main
from amnesis.cli.cache import CacheEntry, cache_entries, cache_folder, delete_entries
from amnesis.data.examples import encode_rows
from amnesis.data.templates import Template
from amnesis.errors import RecipeError
from amnesis.models.fingerprint import fingerprint
from amnesis.scoring.reference import cached
from amnesis.scoring.scores import Needs

ABC1, ABD2, ABC9, FFFF = (name.ljust(32, "0") for name in ("abc1", "abd2", "abc9", "ffff"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, with two models' reference scores and two evaluations."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = tmp_path / "amnesis"
    for name, sizes in {ABC1: (10, 20), ABD2: (3,)}.items():
        (root / "reference" / name).mkdir(parents=True)
        for k, size in enumerate(sizes):
            (root / "reference" / name / f"{k}.safetensors").write_bytes(b"x" * size)
    (root / "evaluation").mkdir()
    for name in (ABC9, FFFF):
        (root / "evaluation" / f"{name}.json").write_bytes(b"y" * 5)
    return root


def entry(root: Path, kind: str, name: str, files: int, size: int, suffix: str = "") -> CacheEntry:
    return CacheEntry(kind, name, root / kind / f"{name}{suffix}", files, size)


def test_every_entry_has_kind_name_files_and_size(root: Path) -> None:
    assert list(cache_entries(root)) == [
        entry(root, "evaluation", ABC9, 1, 5, ".json"),
        entry(root, "evaluation", FFFF, 1, 5, ".json"),
        entry(root, "reference", ABC1, 2, 30),
        entry(root, "reference", ABD2, 1, 3),
    ]


def test_where_nothing_was_kept_there_is_nothing(tmp_path: Path) -> None:
    assert list(cache_entries(tmp_path / "nowhere")) == []
    assert delete_entries(tmp_path / "nowhere", None) == 0


@pytest.mark.parametrize(
    ("name", "freed", "left"),
    [
        ("abc", 35, [FFFF, ABD2]),
        ("abc1", 30, [ABC9, FFFF, ABD2]),
        ("ffff", 5, [ABC9, ABC1, ABD2]),
        (None, 43, []),
    ],
)
def test_names_that_begin_so_are_deleted_and_no_others(
    root: Path, name: str | None, freed: int, left: list[str]
) -> None:
    assert delete_entries(root, name) == freed
    assert [entry.name for entry in cache_entries(root)] == left


def test_a_name_that_is_not_there_has_a_suggestion_and_deletes_nothing(root: Path) -> None:
    before = list(cache_entries(root))
    with pytest.raises(RecipeError, match="did you mean 'ffff0000"):
        delete_entries(root, "fffe".ljust(32, "0"))
    assert list(cache_entries(root)) == before


def test_what_is_not_ours_is_neither_listed_nor_deleted(root: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work", encoding="utf-8")
    (root / "notes").mkdir()
    (root / "reference" / "README.md").write_text("mine", encoding="utf-8")
    (root / "reference" / "0".ljust(32, "0")).symlink_to(precious, target_is_directory=True)
    assert len(list(cache_entries(root))) == 4
    delete_entries(root, None)
    assert sorted(path.name for path in root.rglob("*")) == [
        "0".ljust(32, "0"),
        "README.md",
        "evaluation",
        "notes",
        "reference",
    ]
    assert (precious / "thesis.txt").read_text(encoding="utf-8") == "years of work"


def test_on_a_terminal_it_asks_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", _refuse)
    assert main(["cache", "--delete"]) == 130
    assert len(list(cache_entries(root))) == 4
    assert main(["cache", "--delete", "--yes"]) == 0
    assert list(cache_entries(root)) == []


def _refuse(question: str, abort: bool) -> None:
    assert question.startswith("Delete everything in ")
    assert abort
    raise typer.Abort


def test_the_command_lists_and_deletes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "abc"]) == 0
    said = capsys.readouterr().out
    assert "abc1" in said
    assert "abc9" in said
    assert "abd2" not in said
    assert main(["cache", "nothing", "--delete"]) == 2
    assert "nothing in" in one_line(capsys)
    assert main(["cache", "--delete"]) == 0
    assert "0.0 MB deleted" in capsys.readouterr().out
    assert list(cache_entries(root)) == []


def test_it_is_in_the_user_s_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "amnesis"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "amnesis"


def test_reference_scores_are_listed_by_their_model_s_fingerprint(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path
) -> None:
    examples = encode_rows(qa_rows, tiny_tokenizer, Template()).examples
    cache = tmp_path / "reference"
    cached(tiny_llama, examples, Needs(ref_logps=True), pad_token_id=1, cache=cache)
    (listed,) = cache_entries(tmp_path)
    assert (listed.kind, listed.name, listed.files) == ("reference", fingerprint(tiny_llama), 1)
    assert delete_entries(tmp_path, listed.name[:8]) == listed.size > 0
    assert not list(cache.iterdir())
