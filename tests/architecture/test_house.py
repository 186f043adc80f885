"""Rooms that a stranger finds: sizes, words and names that the code keeps to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("core", "plugins", "evaluation")
FILES = sorted(file for name in SOURCES for file in (ROOT / name).rglob("*.py"))
LONGEST_FUNCTION, WIDEST_ROOM = 60, 12


def functions(file: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node


def docstrings(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def test_no_room_of_the_core_is_wider_than_a_reader_takes_in() -> None:
    rooms = {file.parent for file in FILES if "core" in file.parts}
    widths = {room: len([f for f in room.glob("*.py") if f.stem != "__init__"]) for room in rooms}
    assert {str(room): width for room, width in widths.items() if width > WIDEST_ROOM} == {}


def test_every_room_says_what_it_is_for() -> None:
    for file in FILES:
        if file.name == "__init__.py":
            assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file


def test_a_long_function_says_why() -> None:
    """In a comment on the line of its ``def``, or right above."""
    for file in FILES:
        lines = file.read_text(encoding="utf-8").splitlines()
        for node in functions(file):
            length = (node.end_lineno or 0) - node.lineno + 1
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            reason = "#" in lines[node.lineno - 1] or lines[first - 2].lstrip().startswith("#")
            assert length <= LONGEST_FUNCTION or reason, f"{file}: {node.name} has {length} lines"


def test_the_core_names_no_method() -> None:
    for file in (f for f in FILES if "core" in f.parts):
        named = re.findall(r'"(?:g_effect|sum)\b', file.read_text(encoding="utf-8"))
        assert named == [], file


def test_docstrings_say_what_is_returned() -> None:
    for file in FILES:
        for docstring in docstrings(file):
            assert not docstring.startswith("Give"), f"{file}: {docstring:.60}"


def test_one_word_for_evaluating() -> None:
    """The occupation in an invented person's life is data, and stays."""
    documents = [
        *FILES,
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "benchmarks").rglob("*.py"),
        *(ROOT / "examples").rglob("*.py"),
        *(ROOT / "examples").rglob("*.yaml"),
        *ROOT.glob("*.md"),
    ]
    word = "jud" + "g"
    for file in documents:
        if file.name != "vocabulary.py":
            assert word not in file.read_text(encoding="utf-8").lower(), file
