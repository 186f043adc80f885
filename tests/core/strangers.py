"""A third party's plugins, made on the spot, and the registry that knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import amnesis
from amnesis.discovery.manager import Plugin, build_manager
from amnesis.discovery.registry import Registry


def stranger(
    distribution: str = "third-party",
    entry_point: str = "theirs",
    /,
    **components: Mapping[str, Any],
) -> Plugin:
    """Return a plugin that registers ``kind={name: target}``."""
    module = ModuleType(distribution.replace("-", "_"))
    for kind, targets in components.items():
        setattr(module, f"register_{kind}s", _hook(f"register_{kind}s", targets))
    return Plugin(module, entry_point, distribution, "1.0")


def registry_with(*plugins: Plugin) -> Registry:
    """Return a registry of all that is installed and of these plugins."""
    return Registry(build_manager(modules=plugins))


def _hook(name: str, targets: Mapping[str, Any]) -> Callable[..., None]:
    def implementation(register: amnesis.Register) -> None:
        for known_by, target in targets.items():
            register(known_by, target, summary=f"{known_by} of a third party")

    implementation.__name__ = name
    hook: Callable[..., None] = amnesis.hookimpl(implementation)
    return hook
