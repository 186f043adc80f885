"""A kind of component is whole: whoever adds a hook is told what else it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from docs.generate import components

from amnesis.discovery.entry import KINDS
from amnesis.discovery.manager import HOOKS

ROOT = Path(__file__).resolve().parents[2]
# Reports are pages and commands are the command line's; all else is called what its tests are in.
FOLDERS = {"report": ["pages"]}


def _pages_of_the_site() -> set[str]:
    class Loader(yaml.SafeLoader):
        """mkdocs.yml, without what its tags stand for."""

    Loader.add_multi_constructor("", lambda loader, suffix, node: None)
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)  # noqa: S506

    def pages(node: object) -> set[str]:
        if isinstance(node, dict):
            return {page for value in node.values() for page in pages(value)}
        if isinstance(node, list):
            return {page for value in node for page in pages(value)}
        return {str(node)}

    return pages(site["nav"])


def test_a_hook_is_a_kind() -> None:
    assert sorted(f"register_{kind}s" for kind in KINDS) == sorted(HOOKS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_tests_in_a_folder_of_its_own(kind: str) -> None:
    names = FOLDERS.get(kind, [f"{kind}s"])
    folders = [ROOT / "tests" / tree / name for tree in ("plugins", "evaluation") for name in names]
    assert any(path for folder in folders for path in folder.glob("test_*.py")), (
        f"write tests in one of {', '.join(str(f.relative_to(ROOT)) for f in folders)}"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_page_in_the_reference(kind: str) -> None:
    page = f"reference/{kind}s.md"
    assert kind in (*components.kinds(), "command"), f"docs/generate makes no {page}"
    assert page in _pages_of_the_site(), f"mkdocs.yml: nav lacks {page}"
