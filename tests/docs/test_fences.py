"""Every block of code says its language: by it the other tests find what they run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.pages import ROOT, name_of, written_pages

# Run or checked by test_pages, test_contributing and the packages' own tests; text is only shown.
LANGUAGES = {"python", "sh", "bash", "yaml", "toml", "json", "text"}
PAGES = [
    *written_pages(),
    *sorted(ROOT.glob("[A-Z]*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / ".github").rglob("*.md")),
]


@pytest.mark.parametrize("page", dict.fromkeys(PAGES), ids=name_of)
def test_every_fence_names_a_language(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    fences = [line.strip() for line in lines if line.strip().startswith("```")]
    assert len(fences) % 2 == 0, "a block is not closed"
    for opening, closing in zip(fences[::2], fences[1::2], strict=True):
        assert closing == "```"
        assert opening.removeprefix("```") in LANGUAGES, f"{opening!r} names no language"
