"""Every registered method says what it is, and has a test that holds it to what it claims."""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from tests.properties.combiners import EVERY_COMBINER
from tests.properties.perturbations import EVERY_PERTURBATION
from tests.properties.terms import EVERY_TERM

from amnesis.discovery.entry import Entry
from amnesis.discovery.registry import default_registry

FOLDERS = {
    "objective": "objectives",
    "regularizer": "regularizers",
    "combiner": "combiners",
    "perturbation": "perturbations",
}
NEEDED = {
    "objective": EVERY_TERM,
    "regularizer": EVERY_TERM,
    "combiner": EVERY_COMBINER,
    "perturbation": EVERY_PERTURBATION,
}
# What belongs to no family of claims has a test of its own, and says what it is all the same.
FORMULATED = {*FOLDERS, "weight", "procedure"}
# A benchmark is no formula, and the user's own files are no publication; a report is ours.
WITHOUT_FORMULA, WITHOUT_SOURCE = {"benchmark"}, {"report"}
BUILT_IN = [
    entry
    for entry in default_registry()
    if entry.plugin.distribution == "amnesis" and entry.kind in FOLDERS and not entry.alias_of
]
EVERYTHING = [e for e in default_registry() if e.plugin.distribution == "amnesis"]
COMPONENTS = [entry for entry in EVERYTHING if entry.kind != "command" and not entry.alias_of]


def test_module(entry: Entry) -> ModuleType:
    name = f"tests.plugins.{FOLDERS[entry.kind]}.test_{entry.name}"
    assert find_spec(name) is not None, f"{entry} has no test: write {name.replace('.', '/')}.py"
    return import_module(name)


test_module.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("entry", BUILT_IN, ids=str)
def test_it_has_a_test_file_that_opts_it_in(entry: Entry) -> None:
    module = test_module(entry)
    kind = entry.load()
    subjects = [s for s in module.SUBJECTS if type(s) is kind]
    assert subjects, f"{entry}: SUBJECTS of its test file holds none"
    needed = NEEDED[entry.kind]
    missing = [claim.__name__ for claim in needed if claim not in module.CLAIMS]
    assert not missing, f"{entry}: its CLAIMS lack {missing}"
    assert len(module.CLAIMS) > len(needed), f"{entry}: claims nothing of its own"
    assert "test_claims" in vars(module), f"{entry}: nothing holds its claims"


@pytest.mark.parametrize("entry", BUILT_IN, ids=str)
def test_it_is_one_file_of_its_name(entry: Entry) -> None:
    """One method, one file: a reader who knows the name knows where it is."""
    module = sys.modules[entry.load().__module__]
    assert module.__name__.rpartition(".")[2] == entry.name
    assert module.__file__ is not None
    assert len(Path(module.__file__).read_text().splitlines()) < 120


@pytest.mark.parametrize("entry", COMPONENTS, ids=str)
def test_it_describes_itself(entry: Entry) -> None:
    component = entry.load()
    assert entry.summary.strip()
    assert component.__doc__
    assert component.__doc__ != component.__mro__[1].__doc__
    for name, field in component.model_fields.items():
        assert field.description, f"{entry}: field {name!r} has no description"


@pytest.mark.parametrize("entry", [e for e in COMPONENTS if e.kind in FORMULATED], ids=str)
def test_it_gives_its_formula_and_its_source(entry: Entry) -> None:
    component = entry.load()
    assert component.formula, f"{entry} has no formula"
    assert component.source, f"{entry} has no source"
    assert "Source:" in component.__doc__ or "baseline" in component.source
    assert "eviation" in component.__doc__ or "baseline" in component.source, (
        f"{entry}: say how it deviates from its source, or that it does not"
    )


@pytest.mark.parametrize("entry", [e for e in COMPONENTS if e.kind not in FORMULATED], ids=str)
def test_what_is_no_method_says_where_it_is_from_too(entry: Entry) -> None:
    component = entry.load()
    assert component.formula or entry.kind in WITHOUT_FORMULA, f"{entry} has no formula"
    if entry.kind not in WITHOUT_SOURCE and (entry.kind, entry.name) != ("benchmark", "own"):
        assert component.source, f"{entry} has no source"


@pytest.mark.parametrize(
    "entry", [e for e in EVERYTHING if e.kind not in FOLDERS and not e.alias_of], ids=str
)
def test_a_test_names_it(entry: Entry) -> None:
    """By its class or function, or by its own name in quotes."""
    quoted = rf"[\"'/]{re.escape(entry.name)}[\"'\]]"
    named = re.compile(rf"\b{entry.load().__name__}\b|{quoted}")
    assert any(map(named.search, _tests())), f"{entry}: no test names it"


@cache
def _tests() -> tuple[str, ...]:
    files = Path(__file__).resolve().parents[1].rglob("test_*.py")
    return tuple(file.read_text(encoding="utf-8") for file in files)
