"""The whole hook surface: what a plugin may implement, and when it is called.

A plugin is a module that an entry point of group ``amnesis`` names. Each hook that it implements,
a function of the hook's name decorated with ``@amnesis.hookimpl``, is called once, when a
``Registry`` is built, with a ``register`` callback; nothing is returned.
``register(name, target, summary=...)`` takes a lazy target ``"package.module:Class"`` (preferred:
listing then needs no import) or the class itself. A hook that raises takes only itself down: what
it registered before stays, and ``amnesis plugins`` shows the failure.
"""

from __future__ import annotations

from typing import Any, Protocol

import pluggy

PROJECT = "amnesis"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """Records one component under its name, which may hold letters, digits, ``_`` and ``-``."""

    def __call__(self, name: str, target: str | Any, *, summary: str) -> None:
        """Record ``target`` under ``name``; ``summary`` is one line for listings.

        Raises:
            ValueError: the name, the lazy target or the summary is not of that form.
        """


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
    """Data sets and the evaluation over them; each a :class:`~amnesis.contracts.Benchmark`."""


@hookspec
def register_attacks(register: Register) -> None:
    """Attempts to bring the forgotten back; each a :class:`~amnesis.contracts.Attack`."""


@hookspec
def register_commands(register: Register) -> None:
    """Commands of ``amnesis``; each a function whose parameters typer understands.

    The names of core's own commands are refused. ``--debug`` and ``--without-plugin`` never reach a
    command: they are read wherever they stand on the line.
    """
