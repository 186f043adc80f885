"""The whole hook surface: what a plugin may implement, and when it is called.

Every hook is called once, when a :class:`~amnesis.registry.Registry` is built, with a ``register``
callback; nothing is returned. ``register(name, target, summary=...)`` takes a lazy target
``"package.module:Class"`` (preferred: listing then needs no import) or the class itself.
"""

from __future__ import annotations

from typing import Any, Protocol

import pluggy

PROJECT = "amnesis"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """Records one component under its name; refuses a name that is not an identifier."""

    def __call__(self, name: str, target: str | type[Any] | Any, *, summary: str) -> None:
        """Record ``target`` under ``name``."""


@hookspec
def register_objectives(register: Register) -> None:
    """Terms that make a model forget; each a :class:`~amnesis.contracts.TermBase`."""


@hookspec
def register_regularizers(register: Register) -> None:
    """Terms that make a model keep; the same contract, another namespace."""


@hookspec
def register_combiners(register: Register) -> None:
    """Rules that make one gradient of two; each a :class:`~amnesis.contracts.Combiner`."""


@hookspec
def register_probes(register: Register) -> None:
    """Observers of gradients and updates; each a :class:`~amnesis.contracts.Probe`."""


@hookspec
def register_metrics(register: Register) -> None:
    """Numbers about what a model knows; each a :class:`~amnesis.contracts.Metric`."""


@hookspec
def register_benchmarks(register: Register) -> None:
    """Data sets and the judgement over them; each a :class:`~amnesis.contracts.Benchmark`."""


@hookspec
def register_attacks(register: Register) -> None:
    """Attempts to bring the forgotten back; each a :class:`~amnesis.contracts.Attack`."""


@hookspec
def register_commands(register: Register) -> None:
    """Commands of ``amnesis``; each a function whose parameters typer understands."""
