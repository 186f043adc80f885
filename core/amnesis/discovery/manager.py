"""Loading plugins: each entry point on its own, so that a faulty one does not affect others."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from amnesis.discovery import hookspecs
from amnesis.errors import PluginError, did_you_mean, one_line

GROUP = "amnesis"
HOOKS = tuple(sorted(name for name in vars(hookspecs) if name.startswith("register_")))


@dataclass(frozen=True)
class Plugin:
    """A plugin: a module with hooks, and where it comes from.

    Attributes:
        module: the module, or its entry point as long as it is not imported.
        entry_point: the entry point's name.
        distribution: the name of the package that declares the entry point.
        version: that package's version.
    """

    module: Any
    entry_point: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}, entry point {self.entry_point!r}"


@dataclass(frozen=True)
class Fault:
    """Why a plugin or a part of it is not in use, and what to do about it, in one line.

    ``name`` is the one name that it is about; empty where more may be missing for it.
    """

    plugin: Plugin
    reason: str
    name: str = ""

    def __str__(self) -> str:
        return f"plugin {self.plugin}: {self.reason}"


@dataclass(frozen=True)
class Manager:
    """The loaded plugins.

    Attributes:
        pluggy: the plugin manager that they are registered with.
        plugins: the plugins in use.
        faults: why other plugins are not.
        blocked: the plugins that were left out on request.
    """

    pluggy: pluggy.PluginManager
    plugins: tuple[Plugin, ...]
    faults: tuple[Fault, ...]
    blocked: tuple[Plugin, ...] = ()


def installed_entry_points() -> Sequence[EntryPoint]:
    """Return the installed entry points of group ``amnesis``, each once, sorted."""
    points = {
        (point.name, point.value, point.dist.name if point.dist else ""): point
        for point in entry_points(group=GROUP)
    }
    return [points[key] for key in sorted(points)]


def build_manager(
    points: Iterable[EntryPoint] | None = None,
    modules: Iterable[Plugin] = (),
    blocked: Iterable[str] = (),
) -> Manager:
    """Return a manager of the plugins behind entry points, and of further modules.

    ``points`` defaults to all that are installed. ``blocked`` are names of distributions or entry
    points to leave out, without importing them. A plugin that cannot be imported, or whose hooks
    do not fit :mod:`~amnesis.discovery.hookspecs`, registers nothing and becomes a :class:`Fault`.

    Raises:
        PluginError: a name in ``blocked`` is not that of a plugin.
    """
    if points is None:
        points = installed_entry_points()
    candidates = [*map(_plugin_of, points), *modules]
    exclusions = _select_blocked(candidates, tuple(blocked))
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugins: list[Plugin] = []
    faults: list[Fault] = []
    for candidate in candidates:
        if candidate in exclusions:
            continue
        try:
            plugins.append(_register(manager, candidate, plugins))
        except _UnusableError as error:
            faults.append(Fault(candidate, str(error)))
    return Manager(manager, tuple(plugins), tuple(faults), tuple(exclusions))


class _UnusableError(Exception):
    """A plugin cannot be used; the message becomes its :class:`Fault`."""


def _plugin_of(point: EntryPoint) -> Plugin:
    distribution = point.dist
    return Plugin(
        point,
        point.name,
        distribution.name if distribution else "unknown distribution",
        distribution.version if distribution else "?",
    )


def _select_blocked(candidates: Sequence[Plugin], blocked: Collection[str]) -> list[Plugin]:
    """Return the plugins whose distribution or entry point is among the names in ``blocked``."""
    aliases = {p: {normalized(p.distribution), normalized(p.entry_point)} for p in candidates}
    for name in blocked:
        if not any(normalized(name) in names for names in aliases.values()):
            spellings = {n for p in candidates for n in (p.distribution, p.entry_point)}
            raise PluginError(
                f"no plugin {name!r} is there to be left out; {did_you_mean(name, spellings)}"
            )
    exclusions = {normalized(name) for name in blocked}
    return [plugin for plugin, names in aliases.items() if names & exclusions]


def normalized(name: str) -> str:
    """Return a distribution's name as package indexes compare it: case and separators are equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _register(manager: pluggy.PluginManager, candidate: Plugin, others: Iterable[Plugin]) -> Plugin:
    """Return the plugin with its module, which was imported, checked and registered."""
    plugin = _import_module(candidate)
    for other in others:
        if other.module is plugin.module:
            raise _UnusableError(
                f"brings the same module as plugin {other}; remove one of the two entry points"
            )
    hooks = _hooks_in(plugin.module)
    for name, function in hooks.items():
        _check_name(name)
        _check_arguments(name, function)
    if not hooks:
        raise _UnusableError(
            "has no hook implementation; decorate a function such as register_objectives "
            "with @amnesis.hookimpl"
        )
    try:
        manager.register(plugin.module, name=f"{plugin.distribution}:{plugin.entry_point}")
    except (pluggy.PluginValidationError, ValueError) as error:
        raise _UnusableError(one_line(error)) from error
    return plugin


def _import_module(plugin: Plugin) -> Plugin:
    point = plugin.module
    if not isinstance(point, EntryPoint):
        return plugin
    try:
        module = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's module may raise anything
        raise _UnusableError(
            f"importing {point.value!r} failed with {type(error).__name__}: {one_line(error)}; "
            f"repair it, reinstall it, or uninstall {plugin.distribution}"
        ) from error
    return replace(plugin, module=module)


def _hooks_in(module: Any) -> Mapping[str, Callable[..., Any]]:
    """Return the functions marked as hooks by name; refuse one with a hook's name but no mark."""
    mark, spec = f"{hookspecs.PROJECT}_impl", f"{hookspecs.PROJECT}_spec"
    # getattr_static computes no attribute: a module's __getattr__ may import something heavy.
    functions = {
        name: getattr(module, name)
        for name in dir(module)
        if inspect.isroutine(inspect.getattr_static(module, name, None))
    }
    for name in HOOKS:
        function = functions.get(name)
        if function is not None and not (hasattr(function, mark) or hasattr(function, spec)):
            raise _UnusableError(
                f"defines {name} without a mark; decorate it with @amnesis.hookimpl"
            )
    return {
        name: function
        for name, function in functions.items()
        if hasattr(function, mark) and not getattr(function, mark)["optionalhook"]
    }


def _check_name(name: str) -> None:
    if name in HOOKS:
        return
    close = get_close_matches(name, HOOKS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the hooks are {', '.join(HOOKS)}:"
    raise _UnusableError(f"implements an unknown hook {name!r}; {hint} rename the function")


def _check_arguments(name: str, function: Callable[..., Any]) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    if [p.name for p in parameters] != ["register"] or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.POSITIONAL_ONLY,
    ):
        raise _UnusableError(
            f"hook {name!r} takes one argument, 'register', but is defined with "
            f"{inspect.signature(function)}; write def {name}(register)"
        )
