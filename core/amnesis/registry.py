"""Names: kind → name → component, and who brought it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from amnesis.errors import ContractError, PluginError, RecipeError, did_you_mean
from amnesis.manager import Fault, Manager, Plugin, build_manager

if TYPE_CHECKING:
    from amnesis.contracts import Component

# What each kind must be. Targets are strings so that listing names imports nothing heavy.
KINDS: dict[str, str | None] = {
    "objective": "amnesis.contracts:TermBase",
    "regularizer": "amnesis.contracts:TermBase",
    "combiner": "amnesis.contracts:Combiner",
    "probe": "amnesis.contracts:Probe",
    "metric": "amnesis.contracts:Metric",
    "benchmark": "amnesis.contracts:Benchmark",
    "attack": "amnesis.contracts:Attack",
    "command": None,
}


@dataclass(frozen=True)
class Entry:
    """One registered name: its kind, where its target lives, and whose it is."""

    kind: str
    name: str
    target: str | Any
    summary: str
    plugin: Plugin

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} ({self.plugin})"

    def load(self) -> Any:
        """Import the target and check that it is what its kind asks for.

        Raises:
            PluginError: the target cannot be imported, or has no such attribute.
            ContractError: the target is not a subclass of its kind's contract.
        """
        target = self.target if not isinstance(self.target, str) else self._import(self.target)
        contract = KINDS[self.kind]
        if contract is None:
            return target
        base = _resolve(contract)
        if not (isinstance(target, type) and issubclass(target, base)):
            raise ContractError(
                f"{self}: {target!r} is not a subclass of amnesis.contracts.{base.__name__}; "
                f"derive it from that class"
            )
        return target

    def _import(self, target: str) -> Any:
        try:
            return _resolve(target)
        except Exception as error:  # a stranger's module may raise anything
            raise PluginError(
                f"{self}: loading {target!r} failed with {type(error).__name__}: {error}; "
                f"repair or reinstall {self.plugin.distribution}"
            ) from error


class Registry:
    """All names of one manager. Resolving a name that has two owners is refused, naming both."""

    def __init__(self, manager: Manager) -> None:
        self._entries: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in KINDS}
        self.faults: list[Fault] = list(manager.faults)
        for plugin in manager.plugins:
            for kind in KINDS:
                self._collect(manager, plugin, kind)

    def _collect(self, manager: Manager, plugin: Plugin, kind: str) -> None:
        hook = f"register_{kind}s"
        if not hasattr(plugin.module, hook):
            return
        others = [other.module for other in manager.plugins if other is not plugin]
        caller = manager.pluggy.subset_hook_caller(hook, remove_plugins=others)
        found: list[Entry] = []

        def register(name: str, target: str | Any, *, summary: str) -> None:
            if not name.replace("-", "_").isidentifier():
                raise ValueError(f"{name!r} is not a name: use letters, digits, '_' and '-'")
            found.append(Entry(kind, name, target, summary, plugin))

        try:
            caller(register=register)
        except Exception as error:  # a stranger's hook may raise anything
            self.faults.append(Fault(plugin, f"{hook} failed with {type(error).__name__}: {error}"))
        for entry in found:
            self._entries[kind].setdefault(entry.name, []).append(entry)

    def __iter__(self) -> Iterator[Entry]:
        for kind in KINDS:
            for name in sorted(self._entries[kind]):
                yield from self._entries[kind][name]

    def names(self, kind: str) -> list[str]:
        """Give the names of one kind, sorted."""
        return sorted(self._entries[_known_kind(kind)])

    def find(self, name: str, kinds: tuple[str, ...] = tuple(KINDS)) -> list[Entry]:
        """Give every entry called ``name`` among ``kinds``."""
        return [entry for kind in kinds for entry in self._entries[_known_kind(kind)].get(name, [])]

    def get(self, kind: str, name: str) -> Entry:
        """Give the one entry of this kind and name.

        Raises:
            PluginError: the name is unknown (with suggestions), or has more than one owner.
        """
        owners = self._entries[_known_kind(kind)].get(name, [])
        if len(owners) == 1:
            return owners[0]
        if owners:
            raise PluginError(
                f"{kind} {name!r} is registered by {' and by '.join(str(e.plugin) for e in owners)}; "
                f"rename it in one of them, or uninstall one"
            )
        faults = "".join(f"\n  note: {fault}" for fault in self.faults)
        if not self._any():
            raise PluginError(f"no plugin is installed: reinstall with 'pip install amnesis'{faults}")
        hint = did_you_mean(name, self._entries[kind])
        raise PluginError(f"no {kind} is called {name!r}; {hint}{faults}")

    def _any(self) -> bool:
        return any(self._entries[kind] for kind in KINDS)

    def create(self, kind: str, name: str, **hyper: Any) -> Any:
        """Build the component ``name`` of ``kind`` from its hyper-parameters.

        Raises:
            PluginError: the name does not resolve.
            RecipeError: a hyper-parameter is unknown or out of range.
        """
        from pydantic import ValidationError

        entry = self.get(kind, name)
        component: type[Component] = entry.load()
        unknown = sorted(set(hyper) - set(component.model_fields))
        if unknown:
            raise RecipeError(
                f"{kind} {name!r} has no hyper-parameter {unknown[0]!r}; "
                f"{did_you_mean(unknown[0], component.model_fields)}"
            )
        try:
            return component(**hyper).registered_as(entry)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "its hyper-parameters"
            given = "" if first["type"] == "missing" else f" (got {first['input']!r})"
            raise RecipeError(f"{kind} {name!r}: {where}: {first['msg']}{given}") from error


def _resolve(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise PluginError(f"no kind of component is called {kind!r}; {did_you_mean(kind, KINDS)}")
    return kind


@cache
def default_registry() -> Registry:
    """Give the registry of everything that is installed, built once."""
    return Registry(build_manager())

