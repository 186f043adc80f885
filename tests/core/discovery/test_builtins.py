"""The built-ins come in as a stranger's plugin does, and all of them can be used."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from pathlib import Path

import pytest

from amnesis.contracts import Component
from amnesis.discovery.entry import KINDS, Entry
from amnesis.discovery.manager import HOOKS, Plugin, build_manager, installed_entry_points
from amnesis.discovery.registry import Registry, default_registry

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED: dict[str, str] = PROJECT["entry-points"]["amnesis"]
ENTRIES = [e for e in default_registry() if e.plugin.distribution == "amnesis"]


def _id(entry: Entry) -> str:
    return f"{entry.kind}-{entry.name}"


@pytest.mark.parametrize("name", DECLARED)
def test_every_entry_point_registers_at_least_one_name(name: str) -> None:
    module = importlib.import_module(DECLARED[name])
    manager = build_manager([], modules=[Plugin(module, name, "amnesis", "0")])
    registry = Registry(manager)
    assert registry.faults == []
    assert list(registry), f"{DECLARED[name]} registers nothing"


def test_the_installed_entry_points_are_the_declared_ones() -> None:
    installed = {
        point.name: point.value
        for point in installed_entry_points()
        if point.dist and point.dist.name == PROJECT["name"]
    }
    assert installed == DECLARED, "reinstall: pip install -e ."


def test_one_entry_point_for_each_family() -> None:
    families = {hook.removeprefix("register_") for hook in HOOKS}
    assert set(DECLARED) == families | {"core"}  # whose own commands come in as the others do


@pytest.mark.parametrize("entry", ENTRIES, ids=_id)
def test_every_builtin_target_is_lazy_and_loads(entry: Entry) -> None:
    assert isinstance(entry.target, str), "a class would have to be imported to be listed"
    target = entry.load()
    assert target.__module__ == entry.target.partition(":")[0]
    if KINDS[entry.kind] is not None:
        assert issubclass(target, Component)
    assert inspect.cleandoc(target.__doc__ or ""), "the docstring is what users read"


@pytest.mark.parametrize(
    "entry",
    [e for e in ENTRIES if e.kind in {"objective", "regularizer", "combiner"}],
    ids=_id,
)
def test_every_method_says_its_formula_its_source_and_its_hyper_parameters(entry: Entry) -> None:
    method = entry.load()
    assert method.formula
    assert method.source
    for name, field in method.model_fields.items():
        assert field.description, f"hyper-parameter {name} has no description"
