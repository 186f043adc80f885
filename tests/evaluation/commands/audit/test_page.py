"""An audit's page in a real browser: any width, light and dark, on paper, hostile names as text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.evaluation.commands.audit.bodies import body
from tests.evaluation.pages.a_run import HOSTILE, LONG, SHOWN
from tests.evaluation.pages.browser import CHROMIUM, browser
from tests.evaluation.pages.looks import check_everywhere
from tests.evaluation.pages.reading import Reader

from amnesis_evaluation.commands.audit.history import append
from amnesis_evaluation.commands.audit.records import Outcome
from amnesis_evaluation.commands.audit.shown import line_of, write_page


@pytest.fixture
def page(tmp_path: Path) -> Path:
    request = {"id": "R-1", "asked": "2031-02-03", "closed": None, "data": None, "passed": False}
    closed = {**request, "id": "R-2", "closed": HOSTILE, "passed": None}
    made = body(HOSTILE, passed=False, requests=[request, closed])
    made["outcomes"][0] |= {"key": f"forget/{LONG}", "measured": None, "reason": HOSTILE}
    record, _ = append(tmp_path / "audit.jsonl", made)
    document = record.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert "\x1b" not in line_of(record)
    return write_page(tmp_path / "page", document, [Outcome(**made["outcomes"][0])])


def test_names_are_text_and_numbers_are_in_the_record(page: Path) -> None:
    reader = Reader(page.read_text(encoding="utf-8"))
    assert reader.unbalanced == []
    assert SHOWN in reader.text
    assert "img" not in reader.tags
    assert "Violated" in reader.text
    document = json.loads((page.parent / "audit.json").read_text(encoding="utf-8"))
    assert {value for value, _ in reader.numbers} == {
        *document["values"].values(),
        *document["intervals"]["forget/probability"],
    }


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_it_fits_prints_and_says_nothing_to_the_console(page: Path, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as chromium:
        check_everywhere(chromium, page, texts=40)
