"""Finding plugins: entry points are loaded one by one, so that one fault stays one fault."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from amnesis import hookspecs

GROUP = "amnesis"
HOOKS = tuple(sorted(name for name in vars(hookspecs) if name.startswith("register_")))


@dataclass(frozen=True)
class Plugin:
    """A module with hook implementations, and where it comes from."""

    module: Any
    entry_point: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}, entry point {self.entry_point!r}"


@dataclass(frozen=True)
class Fault:
    """Why a plugin is not in use: one message that says what to do."""

    plugin: Plugin
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.plugin}: {self.reason}"


@dataclass(frozen=True)
class Manager:
    """A pluggy manager, the plugins in it, and the faults of those that are not."""

    pluggy: pluggy.PluginManager
    plugins: tuple[Plugin, ...]
    faults: tuple[Fault, ...]


def installed_entry_points() -> Sequence[EntryPoint]:
    """Give the entry points of group ``amnesis``, each once, in a stable order."""
    found = {(e.name, e.value, e.dist.name if e.dist else ""): e for e in entry_points(group=GROUP)}
    return [found[key] for key in sorted(found)]


def build_manager(
    points: Iterable[EntryPoint] | None = None,
    modules: Iterable[Plugin] = (),
    blocked: Iterable[str] = (),
) -> Manager:
    """Build a manager from entry points and from modules given directly.

    ``points`` default to all installed ones; ``blocked`` names distributions or entry points that
    are left out. A plugin that cannot be imported, or whose hooks do not fit the specifications,
    becomes a :class:`Fault` and registers nothing.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    blocked = set(blocked)
    plugins: list[Plugin] = []
    faults: list[Fault] = []
    for candidate in [*(_describe(p) for p in _all(points)), *modules]:
        if {candidate.distribution, candidate.entry_point} & blocked:
            continue
        try:
            plugin = _imported(candidate)
            _check_hook_names(plugin)
            manager.register(plugin.module, name=f"{plugin.distribution}:{plugin.entry_point}")
        except _Refused as refused:
            faults.append(Fault(candidate, str(refused)))
        except pluggy.PluginValidationError as error:
            faults.append(Fault(candidate, _wrong_argument(error)))
        except ValueError:
            faults.append(Fault(candidate, "is registered twice; uninstall one of its copies"))
        else:
            plugins.append(plugin)
    return Manager(manager, tuple(plugins), tuple(faults))


class _Refused(Exception):
    pass


def _all(points: Iterable[EntryPoint] | None) -> Iterable[EntryPoint]:
    return installed_entry_points() if points is None else points


def _describe(point: EntryPoint) -> Plugin:
    distribution = point.dist
    return Plugin(
        point,
        point.name,
        distribution.name if distribution else "unknown distribution",
        distribution.version if distribution else "?",
    )


def _imported(plugin: Plugin) -> Plugin:
    if not isinstance(plugin.module, EntryPoint):
        return plugin
    point = plugin.module
    try:
        module = point.load()
    except Exception as error:  # a stranger's module may raise anything
        raise _Refused(
            f"importing {point.value!r} failed with {type(error).__name__}: {error}; "
            f"repair it, reinstall it, or uninstall {plugin.distribution}"
        ) from error
    return Plugin(module, plugin.entry_point, plugin.distribution, plugin.version)


def _check_hook_names(plugin: Plugin) -> None:
    marked = [
        name
        for name, value in vars(plugin.module).items()
        if callable(value) and hasattr(value, f"{hookspecs.PROJECT}_impl")
    ]
    for name in marked:
        if name not in HOOKS:
            close = get_close_matches(name, HOOKS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"hooks: {', '.join(HOOKS)}"
            raise _Refused(f"implements an unknown hook {name!r}; {hint} Rename the function")
    if not marked:
        raise _Refused(
            "has no hook implementation; decorate a function such as register_objectives "
            "with @amnesis.hookimpl"
        )


def _wrong_argument(error: pluggy.PluginValidationError) -> str:
    said = str(error)
    hook = re.search(r"hook '([a-z_]+)'", said)
    arguments = re.search(r"Argument\(s\) (\{.*?\})", said)
    if hook and arguments:
        return (
            f"hook {hook[1]!r} takes the argument 'register', not {arguments[1]}; "
            f"write def {hook[1]}(register)"
        )
    return " ".join(said.split())
