"""The pages in a real browser: any width, light and dark, on paper, without a complaint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.evaluation.pages.a_comparison import write_comparison
from tests.evaluation.pages.a_run import write_run
from tests.evaluation.pages.browser import CHROMIUM, Browser, browser
from tests.evaluation.pages.looks import check_looks

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def pages(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"run": page, "comparison": write_comparison(tmp_path_factory.mktemp("compared"))}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["run", "comparison"])
def test_it_fits_and_says_nothing_to_the_console(
    chromium: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    check_looks(chromium, pages[name], width, scheme, texts=100)


def test_samples_are_found_and_tables_sorted(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    chromium.value(
        "(() => { const box = document.querySelector('#find'); box.value = 'ROW 11';"
        "box.dispatchEvent(new Event('input')); })()"
    )
    shown = "[...document.querySelectorAll('.sample')].filter((s) => !s.hidden).length"
    assert chromium.value(shown) == 2
    assert chromium.value("document.querySelector('.filter output').textContent") == "2 of 20"
    column = (
        "[...document.querySelectorAll('.metrics.must-go tbody tr')]"
        ".map((row) => Number(row.cells[1].querySelector('data').value))"
    )
    before = chromium.value(column)
    press = "document.querySelectorAll('.metrics.must-go thead button')[1].click()"
    chromium.value(press)
    assert chromium.value(column) == sorted(before)
    chromium.value(press)
    assert chromium.value(column) == sorted(before, reverse=True)
    assert chromium.complaints == []


def test_without_script_everything_is_there(chromium: Browser, page: Path) -> None:
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(page)
    finally:
        chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    assert chromium.value("document.querySelectorAll('.filter, th button').length") == 0
    assert chromium.value("document.querySelectorAll('.sample').length") == 20
    assert chromium.complaints == []


@pytest.mark.parametrize("name", ["run", "comparison"])
def test_it_prints(chromium: Browser, pages: dict[str, Path], name: str) -> None:
    chromium.open(pages[name])
    printed = chromium.pdf()
    assert printed.startswith(b"%PDF")
    assert len(printed) < 3_000_000
    assert pages[name].stat().st_size < 3_000_000
    assert chromium.complaints == []


def test_a_comparison_is_sorted_by_any_metric_and_read_aloud(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.open(pages["comparison"])
    press = "document.querySelectorAll('#front thead button')[3].click()"
    column = (
        "[...document.querySelectorAll('#front tbody tr')]"
        ".map((row) => Number(row.cells[3].querySelector('data').value))"
    )
    before = chromium.value(column)
    chromium.value(press)
    assert chromium.value(column) == sorted(before)
    chromium.value(
        "document.querySelector('#picture .spot.on').dispatchEvent(new Event('pointerenter'))"
    )
    assert "sum: 0." in chromium.value("document.querySelector('.say').textContent")
    assert chromium.complaints == []
