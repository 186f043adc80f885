"""What every page of ours must be in a browser: legible at any width and in both schemes."""

from __future__ import annotations

from pathlib import Path

from tests.evaluation.pages.browser import Browser

GROUNDS = {"light": "rgb(250, 249, 246)", "dark": "rgb(19, 22, 26)"}

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


def check_looks(chromium: Browser, page: Path, width: int, scheme: str, texts: int) -> None:
    """Check a page at a width, in a colour scheme; it has at least so many ``texts``."""
    chromium.open(page, width, scheme)
    chromium.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    read = chromium.value(FAINT)
    assert read["faint"] == []
    assert read["count"] >= texts
    assert chromium.value("document.documentElement.scrollWidth") <= width
    assert chromium.value(OVERFLOWING) == []
    assert chromium.value("document.title").endswith("amnesis")
    assert chromium.value("getComputedStyle(document.body).backgroundColor") == GROUNDS[scheme]
    assert chromium.complaints == []


def check_everywhere(chromium: Browser, page: Path, texts: int) -> None:
    """Check a page on a desk, on a phone, light, dark, and on paper."""
    for width in (1280, 390):
        for scheme in GROUNDS:
            check_looks(chromium, page, width, scheme, texts)
    printed = chromium.pdf()
    assert printed.startswith(b"%PDF")
    assert len(printed) < 3_000_000
    assert page.stat().st_size < 3_000_000
