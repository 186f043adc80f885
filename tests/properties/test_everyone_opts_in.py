"""Every registered method says what it is, and has a test that holds it to what it claims."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from properties.combiners import EVERY_COMBINER
from properties.terms import EVERY_TERM

from amnesis.discovery.entry import Entry
from amnesis.discovery.registry import default_registry

TESTS = Path(__file__).parents[1]
FOLDERS = {"objective": "objectives", "regularizer": "regularizers", "combiner": "combiners"}
BUILT_IN = [
    entry
    for entry in default_registry()
    if entry.plugin.distribution == "amnesis" and entry.kind in FOLDERS
]
COMPONENTS = [
    entry
    for entry in default_registry()
    if entry.plugin.distribution == "amnesis" and entry.kind != "command"
]


def test_file(entry: Entry) -> ModuleType:
    path = TESTS / "plugins" / FOLDERS[entry.kind] / f"test_{entry.name}.py"
    assert path.is_file(), f"{entry} has no test: write {path.relative_to(TESTS.parent)}"
    name = f"opt_in_{entry.kind}_{entry.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # hypothesis and dataclasses look a module up by its name
    spec.loader.exec_module(module)
    return module


test_file.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize("entry", BUILT_IN, ids=str)
def test_it_has_a_test_file_that_opts_it_in(entry: Entry) -> None:
    module = test_file(entry)
    kind = entry.load()
    subjects = [s for s in module.SUBJECTS if type(s) is kind]
    assert subjects, f"{entry}: SUBJECTS of its test file holds none"
    needed = EVERY_COMBINER if entry.kind == "combiner" else EVERY_TERM
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


@pytest.mark.parametrize("entry", BUILT_IN, ids=str)
def test_it_gives_its_formula_and_its_source(entry: Entry) -> None:
    component = entry.load()
    assert component.formula, f"{entry} has no formula"
    assert component.source, f"{entry} has no source"
    assert "Source:" in component.__doc__ or "baseline" in component.source
    assert "eviation" in component.__doc__ or "baseline" in component.source, (
        f"{entry}: say how it deviates from its source, or that it does not"
    )
