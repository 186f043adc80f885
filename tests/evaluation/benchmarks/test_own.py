"""Your own files, of every kind, and each fault with its place."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import amnesis
from amnesis.data.files import read_rows
from amnesis.errors import DataError

ROWS = [
    {"question": "a?", "answer": "yes", "perturbed_answer": ["no", "perhaps"]},
    {"question": "b,\n?", "answer": 'said "so"\u2028 twice', "perturbed_answer": ["x", "y"]},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows), "utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(
                {k: json.dumps(v) if isinstance(v, list) else v for k, v in r.items()} for r in rows
            )
    else:
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    assert read_rows(write(tmp_path / f"rows{ending}", ROWS)) == ROWS


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.fixed_dictionaries({"question": text, "answer": text}), min_size=1))
def test_any_text_survives_json_lines(tmp_path_factory: Any, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    assert read_rows(write(path, rows)) == rows


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("rows.jsonl", b'{"question": 1}\n{"quest', "rows.jsonl:2: not JSON"),
        ("rows.jsonl", b"{}\n\n[1]\n", "rows.jsonl:3: not an object"),
        ("rows.json", b'[{"a": 1},\n 5]', "item 1 is not an object but 5"),
        ("rows.json", b"[1,\n2", "rows.json:2: not JSON"),
        ("rows.json", b"", "holds no row"),
        (
            "rows.csv",
            b"question,answer\na,b\nc\n",
            "rows.csv:3: has 1 cells, but the header names 2",
        ),
        (
            "rows.csv",
            b"question,answer\na,b,c\n",
            "rows.csv:2: has 3 cells, but the header names 2: question, answer; a cell that holds "
            "',' is written in quotes",
        ),
        ("rows.csv", "question,answer\ncafé,b\n".encode("latin-1"), "not UTF-8"),
        ("rows.parquet", b"PAR1 but not", "not a Parquet file"),
        ("rows.txt", b"a", "not from '.txt'"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(
    tmp_path: Path, name: str, content: bytes, line: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / name)
    assert line in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_misspelt_file_is_suggested(tmp_path: Path) -> None:
    write(tmp_path / "forget.csv", ROWS)
    with pytest.raises(DataError, match=r"did you mean 'forget\.csv'"):
        read_rows(tmp_path / "forgot.csv")


def test_two_csv_files_are_a_benchmark(tmp_path: Path) -> None:
    own = amnesis.create(
        "benchmark",
        "own",
        forget=write(tmp_path / "forget.csv", ROWS[:1]),
        retain=str(write(tmp_path / "retain.csv", ROWS[1:])),
    )
    assert own.sets() == {"forget": ROWS[:1], "retain": ROWS[1:]}


def test_further_texts_are_joined_by_question() -> None:
    own = amnesis.create(
        "benchmark",
        "own",
        forget=[{"question": "a", "answer": "1"}],
        retain=[{"question": "b", "answer": "2"}],
        paraphrase=[{"question": "a", "paraphrased_question": "A"}],
        perturbed=[{"question": "b", "perturbed_answer": ["3"], "answer": "ignored"}],
    )
    assert own.sets() == {
        "forget": [{"question": "a", "answer": "1", "paraphrased_question": "A"}],
        "retain": [{"question": "b", "answer": "2", "perturbed_answer": ["3"]}],
    }


def test_a_row_for_each_wrong_answer_makes_a_list_in_the_files_order(tmp_path: Path) -> None:
    """As spreadsheets have it: the question is repeated."""
    rows = [{"question": "a", "answer": "1"}, {"question": "b", "answer": "2"}]
    long = [
        {"question": "b", "perturbed_answer": "5", "by": "x", "answer": "2"},
        {"question": "a", "perturbed_answer": "4", "by": "x", "answer": "1"},
        {"question": "b", "perturbed_answer": "3", "by": "y", "answer": "2"},
        {"question": "b", "perturbed_answer": '["6", "7"]', "by": "y", "answer": "2"},
    ]
    path = write(tmp_path / "wrong.csv", long)
    own = amnesis.create("benchmark", "own", forget=rows, retain=rows[1:], perturbed=str(path))
    b = {**rows[1], "perturbed_answer": ["5", "3", "6", "7"], "by": ["x", "y", "y"]}
    assert own.sets() == {
        "forget": [{**rows[0], "perturbed_answer": "4", "by": "x"}, b],
        "retain": [b],
    }
    same = amnesis.create(
        "benchmark",
        "own",
        forget=rows[:1],
        retain=rows[:1],
        perturbed=[{"question": "a", "perturbed_answer": "4"}] * 2,
    )
    assert same.sets()["forget"][0]["perturbed_answer"] == ["4", "4"]


@pytest.mark.parametrize(
    ("further", "line"),
    [
        (
            {"perturbed": [{"question": "b", "perturbed_answer": ["3"]}]},
            "set 'forget': 1 of 3 rows have 'perturbed_answer', row 0 has none",
        ),
        (
            {"paraphrase": [{"question": q, "paraphrased_answer": "3"} for q in "ac"]},
            "set 'forget': 2 of 3 rows have 'paraphrased_answer', row 1 has none",
        ),
        (
            {"paraphrase": [{"question": "a", "paraphrased_question": q} for q in "AB"]},
            "paraphrase: the question 'a' has several rows (1 of 1 questions do)",
        ),
    ],
)
def test_further_texts_of_some_rows_are_refused(further: Any, line: str) -> None:
    """A mean over rows with and without them would be of two definitions."""
    rows = [{"question": question, "answer": "1"} for question in "abc"]
    own = amnesis.create("benchmark", "own", forget=rows, retain=[rows[0]] * 2, **further)
    with pytest.raises(DataError) as caught:
        own.sets()
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paraphrases_that_some_rows_hold_themselves_are_refused() -> None:
    rows = [{"question": "a", "answer": "1"}]
    held = [{**rows[0], "paraphrased_answer": "one"}]
    own = amnesis.create("benchmark", "own", forget=rows, retain=rows + held)
    with pytest.raises(DataError, match="set 'retain': 1 of 2 rows have 'paraphrased_answer'"):
        own.sets()
    assert amnesis.create("benchmark", "own", forget=rows, retain=held).sets()["retain"] == held


@pytest.mark.parametrize(
    ("perturbed", "line"),
    [
        ([{"question": "c", "perturbed_answer": ["3"]}], "no set has a row with the question 'c'"),
        ([{"answer": "c"}], "perturbed: row 0 has no field 'question'"),
    ],
)
def test_further_texts_that_belong_to_nothing_are_refused(perturbed: Any, line: str) -> None:
    rows = [{"question": "a", "answer": "1"}]
    own = amnesis.create("benchmark", "own", forget=rows, retain=rows, perturbed=perturbed)
    with pytest.raises(DataError) as caught:
        own.sets()
    assert line in str(caught.value)
