"""What the pages show works: their code runs, recipes validate, commands parse, files exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs.generate import commands
from docs.hooks import COPIES, INSERTS
from tests.docs.pages import ROOT, blocks, command_lines, name_of, written_pages

from amnesis.runs.recipe import FinetuneRecipe, Recipe
from amnesis_evaluation.commands.audit.policy import Policy
from amnesis_evaluation.commands.sweep.settings import Sweep

PAGES = written_pages()
RUN = {"model": "m", "objective": "wga", "regularizer": "kl", "benchmark": "fictional"}
FINETUNE = {"model": "m", "benchmark": "fictional", "sets": ["forget", "retain"]}
# A path of the repository in the text or the code of a page.
_PATH = re.compile(r"(?<![\w/.-])((?:examples|benchmarks|tests|plugins|docs|core)/[\w/.-]+)")
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


def _with(pages: list[Path], *languages: str) -> list[Path]:
    return [page for page in pages if blocks(page, *languages)]


@pytest.mark.parametrize("page", _with(PAGES, "python"), ids=name_of)
def test_python_runs(page: Path, tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any) -> None:
    given = {
        "model": tiny_llama,
        "tokenizer": tiny_tokenizer,
        "forget": qa_rows[:4],
        "retain": qa_rows[4:],
    }
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{name_of(page)} block {number}", "exec"), given)  # noqa: S102


@pytest.mark.parametrize("page", _with(PAGES, "yaml"), ids=name_of)
def test_recipes_and_parts_of_recipes_validate(page: Path) -> None:
    for block in blocks(page, "yaml"):
        part = yaml.safe_load(block)
        if "require" in part:
            Policy.parse({"benchmark": "fictional", **part})
            continue
        if "sets" in part:
            FinetuneRecipe.parse(part)
            continue
        if part.keys() & {"space", "methods", "forgetting"}:
            Sweep.parse({"space": {"objective": ["ga"]}, **part, "recipe": RUN})
            continue
        base = {"model": "m", "benchmark": "fictional"} if "procedure" in part else RUN
        recipe = Recipe.parse({**base, **part})
        assert Recipe.parse(yaml.safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize("page", [p for p in PAGES if list(command_lines(p))], ids=name_of)
def test_commands_parse(page: Path, tmp_path: Path) -> None:
    known = commands.commands()
    for name, *words in command_lines(page):
        context = known[name].make_context(name, list(words))
        if name in ("run", "finetune"):
            _check_recipe(name, context.params, tmp_path)


def _check_recipe(name: str, params: dict[str, Any], folder: Path) -> None:
    """Apply a line's changes to the recipe that it names, or to one in its place."""
    path = ROOT / params["recipe"]
    if not path.is_file():
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(RUN if name == "run" else FINETUNE))
    record = Recipe if name == "run" else FinetuneRecipe
    record.load(path, params["overrides"] or ())


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_what_a_page_names_exists(page: Path) -> None:
    """Paths of the repository; and the links of pages that are read without the site."""
    text = page.read_text(encoding="utf-8")
    for path in _PATH.findall(text):
        whole = ROOT / path.rstrip(".,")
        assert whole.exists() or (page.parent / path).exists(), f"{path}: there is no such file"
    for link in _LINK.findall(text) if page.parent == ROOT else ():
        assert (ROOT / link).exists(), f"{link}: there is no such file"


def test_what_a_page_asks_to_insert_is_generated() -> None:
    asked = {
        name
        for page in PAGES
        for name in re.findall(r"<!-- insert: (\w+) -->", page.read_text(encoding="utf-8"))
    }
    assert asked == set(INSERTS)
    assert all((ROOT / path).is_file() for path in COPIES.values())


def test_the_site_needs_no_other_host() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in text
    assert not re.search(r"https?://", text)


def test_the_report_is_shown_where_it_is_there() -> None:
    shown = "docs/images/report.png" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert shown == (ROOT / "docs/images/report.png").is_file()
