"""The pages in a real browser: any width, light and dark, on paper, without a complaint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.evaluation.pages.a_comparison import write_comparison
from tests.evaluation.pages.a_run import write_run
from tests.evaluation.pages.browser import CHROMIUM, Browser, browser

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


# Whatever is wider than the window must scroll inside itself.
OVERFLOWING = """[...document.querySelectorAll("body *")].filter((one) => {
  const box = one.getBoundingClientRect();
  const inside = one.closest(".scroll, .wide, pre, nav ul, svg, .skip");
  return box.width && !inside && (box.right > innerWidth + 1 || box.left < -1);
}).map((one) => one.outerHTML.slice(0, 90))"""


# Text on what is painted behind it, a colour of which is mixed with that behind it in turn. Each
# colour is read from one painted pixel, in whatever notation the stylesheet has it.
FAINT = """(() => {
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const read = (colour) => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((c, i) => (c * a + below[i] * (255 - a)) / 255);
  const ground = (one) => {
    if (!one) return [255, 255, 255];
    const style = getComputedStyle(one);
    return over(read(style.backgroundColor), ground(one.parentElement));
  };
  const luminance = (colour) => colour
    .map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const faint = [];
  let count = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !one.getBoundingClientRect().width) continue;
    if (one.closest("script, style")) continue;
    const style = getComputedStyle(one);
    const before = one.closest("svg") && one.previousElementSibling;
    const below = before && before.tagName === "circle" && one.textContent.length < 3
      ? over(read(getComputedStyle(before).fill), ground(one)) : ground(one);
    const colour = over(read(one.closest("svg") ? style.fill : style.color), below);
    const [high, low] = [luminance(colour), luminance(below)].sort((a, b) => b - a);
    count += 1;
    if ((high + 0.05) / (low + 0.05) < 4.5) faint.push(one.outerHTML.slice(0, 90));
  }
  return { faint, count };
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["run", "comparison"])
def test_it_fits_and_says_nothing_to_the_console(
    chromium: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    chromium.open(pages[name], width, scheme)
    chromium.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    read = chromium.value(FAINT)
    assert read["faint"] == []
    assert read["count"] > 100
    assert chromium.value("document.documentElement.scrollWidth") <= width
    assert chromium.value(OVERFLOWING) == []
    assert chromium.value("document.title").endswith("amnesis")
    assert chromium.complaints == []
    ground = chromium.value("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(250, 249, 246)" if scheme == "light" else "rgb(19, 22, 26)")


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
