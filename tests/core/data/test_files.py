"""Rows from files: strict, with the line of every fault; nothing is dropped or guessed away."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amnesis.data.files import read_rows
from amnesis.errors import DataError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))  # whole characters


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", 'question,answer\n"Who?,Me\n' + "What?,That\n" * 500, ["a.csv:2:", "quote"]),
        ("a.csv", 'question,answer\nWho?,Me\n"What" now?,That\n', ["a.csv:3:", "not CSV"]),
        ("a.csv", "question,answer,answer\nWho?,Me,You\n", ["a.csv:1:", "'answer'"]),
        ("a.csv", "question,answer\nWho?,Me,You\n", ["a.csv:2:", "3 cells", "2: question, answer"]),
        ("a.csv", "question;answer\nWer?;Müller\n".encode("latin-1"), ["a.csv:2:", "Latin-1"]),
        ("a.json", '[{"question": "a", "answer": "b", "answer": "c"}]', ["'answer'", "twice"]),
        ("a.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n', ["a.jsonl:2:", "'a'"]),
        ("a.jsonl", '{"a": 1}\n{"a": "\\ud800"}\n', ["a.jsonl:2:", "half a character"]),
        ("a.jsonl", '{"a": ' + "9" * 5000 + "}\n", ["a.jsonl:1:", "not JSON that can be read"]),
        ("a.jsonl", '{"a": ' + "[" * 100_000 + "\n", ["a.jsonl:1:", "not JSON"]),
        ("a.json", '[{"a": 1},\n{"a": }]', ["a.json:2:", "not JSON"]),
        ("a.parquet", b"PAR1 not really PAR1", ["not a Parquet file"]),
    ],
)
def test_a_fault_is_named_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, words: list[str]
) -> None:
    with pytest.raises(DataError) as refused:
        read_rows(written(tmp_path, name, content))
    message = str(refused.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_separators_are_recognised_by_the_header(tmp_path: Path, delimiter: str) -> None:
    text = f'question{delimiter}answer\n"a{delimiter}b"{delimiter}c, d; e\n'.replace(
        "c, d; e", '"c, d; e"'
    )
    name = "a.tsv" if delimiter == "\t" else "a.csv"
    rows = read_rows(written(tmp_path, name, text))
    assert rows == [{"question": f"a{delimiter}b", "answer": "c, d; e"}]


@given(rows=st.lists(st.fixed_dictionaries({"q": TEXTS, "ä b": TEXTS}), min_size=1, max_size=5))
def test_json_lines_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    lines = "\n".join(json.dumps(row) for row in rows)
    path = written(tmp_path_factory.mktemp("rows"), "a.jsonl", lines)
    assert read_rows(path) == rows


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="to its end"):
        read_rows(tmp_path / "a.jsonl")
