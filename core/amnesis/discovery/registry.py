"""The registry: every component's name by kind, and the plugin that registers it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from amnesis.config.validation import validated
from amnesis.discovery.entry import KINDS, Entry, check_kind
from amnesis.discovery.hookspecs import PROJECT
from amnesis.discovery.manager import Fault, Manager, Plugin, build_manager, normalized
from amnesis.errors import PluginError, did_you_mean, one_line

if TYPE_CHECKING:
    from amnesis.contracts import Component


class Registry:
    """The names that the plugins of a manager register; iterating yields every :class:`Entry`.

    A name that several register is told apart as ``distribution:name``; without a distribution it
    is amnesis's own, or nobody's. ``faults`` are the reasons why plugins, or parts of them, are
    not in use.
    """

    def __init__(self, manager: Manager) -> None:
        """Call every hook of the manager's plugins, once."""
        self._entries: dict[str, dict[str, list[Entry]]] = {kind: {} for kind in KINDS}
        self._unusable: list[Fault] = list(manager.faults)
        self._blocked = manager.blocked
        for plugin in manager.plugins:
            for kind in KINDS:
                self._collect(manager, plugin, kind)
        self._reserve_builtin_names()
        self._resolve_aliases()
        self.faults: list[Fault] = [*self._unusable, *self._duplicates()]

    def _collect(self, manager: Manager, plugin: Plugin, kind: str) -> None:
        hook = f"register_{kind}s"
        if not hasattr(plugin.module, hook):
            return
        # One plugin at a time, so that the owner of each name is clear.
        others = [p for p in manager.pluggy.get_plugins() if p is not plugin.module]
        caller = manager.pluggy.subset_hook_caller(hook, remove_plugins=others)
        new_entries: list[Entry] = []

        def register(name: str, target: str | Any, *, summary: str) -> None:
            _check_registration(name, target, summary)
            new_entries.append(Entry(kind, name, target, summary, plugin))

        try:
            caller(register=register)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a stranger's hook may raise anything
            problem = f"{hook} failed with {type(error).__name__}: {one_line(error)}; repair it"
            self._unusable.append(Fault(plugin, problem))
        for entry in new_entries:
            self._entries[kind].setdefault(entry.name, []).append(entry)

    def _reserve_builtin_names(self) -> None:
        """Leave a name of amnesis itself to it; a plugin's is kept as ``distribution:name``."""
        for entries in self._entries.values():
            for name, owners in list(entries.items()):
                builtins = [entry for entry in owners if _is_builtin(entry)]
                if not builtins:
                    continue
                entries[name] = builtins
                for entry in owners:
                    if not _is_builtin(entry):
                        full = full_name(entry)
                        entries.setdefault(full, []).append(replace(entry, name=full))
                        problem = (
                            f"its {entry.kind} {name!r} is amnesis's own; give it another name, "
                            f"or say {full!r}"
                        )
                        self._unusable.append(Fault(entry.plugin, problem, name))

    def _resolve_aliases(self) -> None:
        """Point every further name of a component at that component's target."""
        for kind, entries in self._entries.items():
            for name, owners in list(entries.items()):
                entries[name] = [entry for one in owners if (entry := self._real(one)) is not None]
                if not entries[name]:
                    del self._entries[kind][name]

    def _real(self, entry: Entry) -> Entry | None:
        if not (isinstance(entry.target, str) and ":" not in entry.target):
            return entry
        owners = self._entries[entry.kind].get(entry.target, [])
        target = owners[-1] if owners else None
        if target is None or (isinstance(target.target, str) and ":" not in target.target):
            problem = (
                f"its {entry.kind} {entry.name!r} stands for {entry.target!r}, but no {entry.kind} "
                f"is called so; correct the name"
            )
            self._unusable.append(Fault(entry.plugin, problem, entry.name))
            return None
        return replace(entry, target=target.target, alias_of=target.alias_of or target.name)

    def _duplicates(self) -> Iterator[Fault]:
        for entry in self:
            first = self._entries[entry.kind][entry.name][0]
            if entry is not first:
                yield Fault(
                    entry.plugin,
                    f"registers {entry.kind} {entry.name!r}, as plugin {first.plugin} does, so "
                    f"neither can be used by that name alone; say {full_name(entry)!r}, rename "
                    f"it, or leave one plugin out",
                    entry.name,
                )

    def __iter__(self) -> Iterator[Entry]:
        for kind in KINDS:
            for name in sorted(self._entries[kind]):
                yield from self._entries[kind][name]

    def names(self, kind: str) -> list[str]:
        """Return the names of one kind, sorted.

        Raises:
            PluginError: the kind does not exist.
        """
        return sorted(self._entries[check_kind(kind)])

    def find(self, name: str, kinds: tuple[str, ...] = tuple(KINDS)) -> list[Entry]:
        """Return the entries called ``name``, or ``distribution:name``, in the order of ``kinds``.

        Raises:
            PluginError: a kind does not exist.
        """
        return [entry for kind in kinds for entry in self._owners(check_kind(kind), name)]

    def _owners(self, kind: str, name: str) -> list[Entry]:
        entries = self._entries[kind]
        if name in entries or ":" not in name:
            return entries.get(name, [])
        distribution, _, plain = name.partition(":")
        owners = entries.get(plain, [])
        theirs = [entry for entry in owners if _is_of(entry, distribution)]
        if not theirs:
            kept = (es for full, es in entries.items() if full.endswith(f":{plain}"))
            return [entry for es in kept for entry in es if _is_of(entry, distribution)]
        # What two plugins call the same is called by its full name wherever it is shown, too.
        return [replace(e, name=full_name(e)) for e in theirs] if len(owners) > 1 else theirs

    def get(self, kind: str, name: str) -> Entry:
        """Return the entry of a kind and name.

        Raises:
            PluginError: the name is unknown (the message suggests similar ones), or several
                plugins register it (the message names them).
        """
        owners = self._owners(check_kind(kind), name)
        if len(owners) == 1:
            return owners[0]
        if owners:
            raise PluginError(
                f"{kind} {name!r} is registered by {' and by '.join(str(e.plugin) for e in owners)}"
                f"; say {full_name(owners[-1])!r}, rename it in one of them, or leave one out "
                f"(--without-plugin {owners[-1].plugin.entry_point})"
            )
        problem = f"no {kind} is called {name!r}"
        if (first := name.partition(":")[0]) != name and first in self._entries[kind]:
            problem += f" (for a hyper-parameter of {first!r}, write name:key=value)"
        raise self.unknown(problem, name, self.names(kind))

    def unknown(self, problem: str, name: str, candidates: list[str]) -> PluginError:
        """Return the error for a name that no plugin registers, with the faults as possible causes.

        A fault that is about another name is none. ``problem`` begins the message; ``candidates``
        are the names to suggest from.
        """
        reasons = [f"left out: plugin {plugin}" for plugin in self._blocked]
        reasons += [str(fault) for fault in self._unusable if fault.name in ("", name)]
        if not any(self) and not self._blocked:
            return PluginError(
                f"{problem}, for no plugin is installed, not even amnesis's own: "
                f"reinstall amnesis with pip",
                reasons,
            )
        return PluginError(f"{problem}; {did_you_mean(name, candidates)}", reasons)

    def create(self, kind: str, name: str, /, **hyper: Any) -> Any:
        """Return a new component of a kind and name, with these hyper-parameters.

        Raises:
            PluginError: the kind or name does not resolve, or is a command.
            ContractError: the registered class does not fit its kind.
            RecipeError: hyper-parameters are unknown or out of range; the message lists them all.
        """
        entry = self.get(kind, name)
        if KINDS[kind] is None:
            raise PluginError(f"a {kind} is not created but run: 'amnesis {name}'")
        cls: type[Component] = entry.load()
        component = validated(cls, hyper, f"{kind} {name!r}", context={"registry": self})
        return component.registered_as(entry.registration)


def full_name(entry: Entry) -> str:
    """Return ``distribution:name``, which no two plugins of different distributions share."""
    if ":" in entry.name:
        return entry.name
    return f"{entry.plugin.distribution}:{entry.name}"


def _is_of(entry: Entry, distribution: str) -> bool:
    return normalized(entry.plugin.distribution) == normalized(distribution)


def _check_registration(name: Any, target: Any, summary: Any) -> None:
    if not (isinstance(name, str) and name.replace("-", "_").isidentifier()):
        raise ValueError(f"{name!r} is not a name: use letters, digits, '_' and '-'")
    if isinstance(target, str) and not (
        all(target.partition(":")) or target.replace("-", "_").isidentifier()
    ):
        raise ValueError(f"{target!r} of {name!r} is not a target: write 'package.module:Class'")
    if not (isinstance(summary, str) and summary.strip()) or "\n" in summary:
        raise ValueError(f"the summary of {name!r} must be one line of text, not {summary!r}")


def _is_builtin(entry: Entry) -> bool:
    return entry.plugin.distribution == PROJECT


@cache
def default_registry() -> Registry:
    """Return the registry of all installed plugins, which is built at the first call."""
    return Registry(build_manager())
