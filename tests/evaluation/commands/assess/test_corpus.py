"""Passages of a corpus: how it is split, what comes first, and a CSV that `--forget` reads."""

from __future__ import annotations

import csv
import json
import socket
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.evaluation.commands.assess.conftest import PASSAGES, UNSEEN

from amnesis.cli.app import main
from amnesis.data.files import read_rows
from amnesis.errors import DataError, ModelError
from amnesis_evaluation.commands.assess.corpus import (
    LONGEST,
    SHORTEST,
    Passage,
    csv_of,
    pieces,
    read_passages,
)
from amnesis_evaluation.commands.assess.personal import Finder, finder
from amnesis_evaluation.commands.assess.record import Candidate, Candidates


@given(st.text(st.sampled_from("ab. \n\r。\t"), max_size=4000))
def test_a_text_is_split_without_loss(text: str) -> None:
    found = pieces(text)
    assert "".join("".join(piece for _, piece in found).split()) == "".join(text.split())
    assert all(0 < len(piece) <= LONGEST and piece == piece.strip() for _, piece in found)
    assert not any("\r" in piece for _, piece in found)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for line, piece in found:
        assert piece.split("\n")[0].strip() in lines[line - 1]
    for (_, piece), (_, following) in pairwise(found):
        assert len(piece) >= SHORTEST or len(piece) + len(following) + 2 > LONGEST


def test_long_paragraphs_end_with_a_sentence() -> None:
    sentence = "He went to the harbour, and nobody was there to see it. "
    found = [piece for _, piece in pieces(sentence * 40)]
    assert len(found) == 3
    assert all(piece.endswith("see it.") for piece in found)


def test_passages_come_from_texts_rows_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\n\nTwo.", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "Three."}\n{"text": "Four."}', encoding="utf-8")
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    found = [(one.text, Path(one.file).name, one.place) for one in read_passages([tmp_path])]
    assert found == [
        ("One.\n\nTwo.", "a.txt", 1),
        ("Three.", "b.jsonl", 1),
        ("Four.", "b.jsonl", 2),
    ]


def test_what_is_no_text_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "x"}\n{"question": "y"}', encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    (tmp_path / "empty.txt").write_text(" \n ")
    (tmp_path / "none").mkdir()
    for name, said in (
        ("rows.jsonl", "row 2 has no text"),
        ("latin.txt", "UTF-8"),
        ("empty.txt", "holds no text"),
        ("none", "holds no file of"),
        ("gone.txt", "cannot be read"),
        ("x.docx", "not from '.docx'"),
    ):
        with pytest.raises(DataError, match=said):
            read_passages([tmp_path / name])


def ranking(world: Path, model: str) -> list[str]:
    """Return the command line that looks for what one of the world's models knows of its corpus."""
    return f"assess {world / model} --corpus {world / 'corpus.txt'} --device cpu".split()


def test_candidates_are_what_the_model_gives_back_and_can_be_forgotten(
    world: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "forget.csv"
    line = ranking(world, "model")
    assert main([*line, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "gives back 2 of 4 passages" in said
    assert not any(part in said for part in ("Rua das Flores", "keeper"))
    assert out.stat().st_mode & 0o77 == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["text"] for row in rows} == {PASSAGES[0], f"'{PASSAGES[1]}"}
    by_place = {int(row["place"]): row for row in rows}
    assert by_place[1]["text"] == PASSAGES[0]
    assert set(by_place) == {1, 7}
    assert all(float(row["probability"]) > 0.9 for row in rows)
    found = finder()
    for row in rows:
        assert row["kinds"] == ("" if found is None else " ".join(found.kinds(row["text"])))
    assert main([*line, "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err

    assert (
        main(["assess", str(world / "model"), "--forget", str(out), "--device", "cpu", "--json"])
        == 0
    )
    record = json.loads(capsys.readouterr().out)
    assert record["rows"] == {"forget": 2}
    assert record["knowledge"]["memorised"]["rows"] == 2


def test_where_nothing_comes_back_nothing_is_written(
    world: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "forget.csv"
    line = ranking(world, "blank")
    assert main([*line, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("The model gives back none of 4 passages")
    assert f"{out} was not written" in said
    assert not out.exists()


@example(["[1, 2]", "=1+1"])
@given(
    st.lists(st.text(min_size=1, max_size=40).map(str.strip).filter(bool), min_size=1, max_size=5)
)
def test_the_csv_reads_back_and_no_spreadsheet_executes_it(written: list[str]) -> None:
    import tempfile

    texts = [text for one in written for _, text in pieces(one)]
    passages = [Passage(text, "=cmd|' /C calc'!A0", 3) for text in texts]
    record = Candidates(
        passages=len(texts),
        candidates=tuple(
            Candidate(file=one.file, place=3, extraction_strength=1.0, probability=0.5)
            for one in passages
        ),
        sentence="",
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "forget.csv"
        file.write_text(csv_of(passages, record), encoding="utf-8", newline="")
        rows = read_rows(file)
    assert [row["text"].lstrip("' ") for row in rows] == [text.lstrip("' ") for text in texts]
    for row in rows:
        assert not row["text"].startswith(("=", "+", "-", "@", "\t", "\r"))
        assert row["file"].startswith("'=")


@pytest.fixture(scope="module")
def patterns() -> Finder:
    pytest.importorskip("presidio_analyzer", reason="the extra pii is not installed")
    found = finder()
    assert found is not None
    return found


TEXTS = {
    PASSAGES[0]: {"email_address"},
    UNSEEN[0]: set(),
    "Call +351 912 345 678 before noon.": {"phone_number"},
    "Pay to DE89 3704 0044 0532 0130 00, or by card 4111 1111 1111 1111.": {
        "iban_code",
        "credit_card",
    },
    "Order 123456789 was shipped, see https://example.org/orders": set(),
}


@pytest.mark.parametrize("text", TEXTS)
def test_patterns_mark_kinds_of_personal_data_without_a_network(
    patterns: Finder, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreached(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", unreached)
    monkeypatch.setattr(socket.socket, "connect", unreached)
    monkeypatch.setattr("tldextract.extract", unreached)  # which fetches a list, and keeps it
    assert set(patterns.kinds(text)) == TEXTS[text]


def test_names_need_a_model_which_is_never_downloaded(patterns: Finder, tmp_path: Path) -> None:
    import spacy

    pipeline = spacy.blank("en")
    ruler: Any = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns(
        [{"label": "PERSON", "pattern": "Mirela Dantes"}, {"label": "GPE", "pattern": "Porto"}]
    )
    pipeline.to_disk(tmp_path / "names")
    found = finder(str(tmp_path / "names"))
    assert found is not None
    assert set(found.kinds(PASSAGES[0])) == {"email_address", "location", "person"}
    with pytest.raises(ModelError, match="--names xx_none: there is no such spaCy model"):
        finder("xx_none")


def test_without_presidio_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    assert finder() is None
    with pytest.raises(ModelError, match=r"amnesis\[pii\]"):
        finder("en_core_web_sm")
