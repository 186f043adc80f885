"""Finding plugins: entry points are loaded one by one, so that one fault stays one fault."""

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
    """A module with hook implementations, and where it comes from.

    ``module`` is the entry point itself where the module could not be imported.
    """

    module: Any
    entry_point: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}, entry point {self.entry_point!r}"


@dataclass(frozen=True)
class Fault:
    """Why a plugin, or a part of it, is not in use: one message that says what to do."""

    plugin: Plugin
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.plugin}: {self.reason}"


@dataclass(frozen=True)
class Manager:
    """A pluggy manager, the plugins in it, and those that are not: faulty, or left out."""

    pluggy: pluggy.PluginManager
    plugins: tuple[Plugin, ...]
    faults: tuple[Fault, ...]
    blocked: tuple[Plugin, ...] = ()


def installed_entry_points() -> Sequence[EntryPoint]:
    """Return the entry points of group ``amnesis``, each once, in a stable order."""
    found = {(e.name, e.value, e.dist.name if e.dist else ""): e for e in entry_points(group=GROUP)}
    return [found[key] for key in sorted(found)]


def build_manager(
    points: Iterable[EntryPoint] | None = None,
    modules: Iterable[Plugin] = (),
    blocked: Iterable[str] = (),
) -> Manager:
    """Build a manager from entry points and from modules given directly.

    ``points`` default to all installed ones; ``blocked`` names distributions or entry points that
    are left out, without being imported. A plugin that cannot be imported, or whose hooks do not
    fit the specifications, becomes a :class:`Fault` and registers nothing.

    Raises:
        PluginError: nothing is called what ``blocked`` says.
    """
    found = [_described(p) for p in (installed_entry_points() if points is None else points)]
    candidates = [*found, *modules]
    left_out = _left_out(candidates, tuple(blocked))
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugins: list[Plugin] = []
    faults: list[Fault] = []
    for candidate in candidates:
        if candidate in left_out:
            continue
        try:
            plugins.append(_registered(manager, candidate, plugins))
        except _RefusedError as refused:
            faults.append(Fault(candidate, str(refused)))
    return Manager(manager, tuple(plugins), tuple(faults), tuple(left_out))


class _RefusedError(Exception):
    pass


def _described(point: EntryPoint) -> Plugin:
    distribution = point.dist
    return Plugin(
        point,
        point.name,
        distribution.name if distribution else "unknown distribution",
        distribution.version if distribution else "?",
    )


def _left_out(candidates: Sequence[Plugin], blocked: Collection[str]) -> list[Plugin]:
    names = {p: {_normalized(p.distribution), _normalized(p.entry_point)} for p in candidates}
    for name in blocked:
        if not any(_normalized(name) in own for own in names.values()):
            known = {n for p in candidates for n in (p.distribution, p.entry_point)}
            raise PluginError(
                f"no plugin {name!r} is there to be left out; {did_you_mean(name, known)}"
            )
    unwanted = {_normalized(name) for name in blocked}
    return [plugin for plugin, own in names.items() if own & unwanted]


def _normalized(name: str) -> str:
    """Spell a distribution's name as package indexes do, where case and separators are equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _registered(
    manager: pluggy.PluginManager, candidate: Plugin, others: Iterable[Plugin]
) -> Plugin:
    plugin = _imported(candidate)
    for other in others:
        if other.module is plugin.module:
            raise _RefusedError(
                f"brings the same module as plugin {other}; remove one of the two entry points"
            )
    marked = _implementations(plugin.module)
    for name, function in marked.items():
        _check_name(name)
        _check_arguments(name, function)
    if not marked:
        raise _RefusedError(
            "has no hook implementation; decorate a function such as register_objectives "
            "with @amnesis.hookimpl"
        )
    try:
        manager.register(plugin.module, name=f"{plugin.distribution}:{plugin.entry_point}")
    except (pluggy.PluginValidationError, ValueError) as error:
        raise _RefusedError(one_line(error)) from error
    return plugin


def _imported(plugin: Plugin) -> Plugin:
    point = plugin.module
    if not isinstance(point, EntryPoint):
        return plugin
    try:
        module = point.load()
    except (Exception, SystemExit) as error:  # a stranger's module may raise anything
        raise _RefusedError(
            f"importing {point.value!r} failed with {type(error).__name__}: {one_line(error)}; "
            f"repair it, reinstall it, or uninstall {plugin.distribution}"
        ) from error
    return replace(plugin, module=module)


def _implementations(module: Any) -> Mapping[str, Callable[..., Any]]:
    """Return the functions marked as hooks, refusing one that only looks like a hook."""
    mark, spec = f"{hookspecs.PROJECT}_impl", f"{hookspecs.PROJECT}_spec"
    # Static first: a module may compute attributes, and importing something heavy is one way to.
    functions = {
        name: getattr(module, name)
        for name in dir(module)
        if inspect.isroutine(inspect.getattr_static(module, name, None))
    }
    for name in HOOKS:
        function = functions.get(name)
        if function is not None and not (hasattr(function, mark) or hasattr(function, spec)):
            raise _RefusedError(
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
    raise _RefusedError(f"implements an unknown hook {name!r}; {hint} rename the function")


def _check_arguments(name: str, function: Callable[..., Any]) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    if [p.name for p in parameters] != ["register"] or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.POSITIONAL_ONLY,
    ):
        raise _RefusedError(
            f"hook {name!r} takes one argument, 'register', but is defined with "
            f"{inspect.signature(function)}; write def {name}(register)"
        )
