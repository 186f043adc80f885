"""The hooks that a plugin may implement: one for each kind of component, and no others.

A plugin is a module that an entry point of group ``amnesis`` names. A hook is a function of one of
the names below, decorated with ``@amnesis.hookimpl``, that takes the callback ``register`` and
returns nothing. It is called once, when a registry is built.

For each of its components the hook calls ``register(name, target, summary=...)``. Prefer a lazy
target, ``"package.module:Class"``, to the class itself: listing names then imports nothing, and
the class is loaded when it is first used. Where two plugins register one name of one kind, either
is used as ``distribution:name``, and neither by the name alone; a name of amnesis itself stays with
amnesis.

A fault stays where it is. If a hook raises, what it has registered so far remains usable, as do
all other hooks and plugins; ``amnesis plugins`` shows what is not in use, and why.
"""

from __future__ import annotations

from typing import Any, Protocol

import pluggy

PROJECT = "amnesis"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """The callback that a hook receives, which registers one component."""

    def __call__(self, name: str, target: str | Any, *, summary: str) -> None:
        """Register ``target`` under ``name``.

        Args:
            name: what recipes and the command line call it: letters, digits, ``_`` and ``-``.
            target: ``"package.module:Class"``, or the class (for a command, the function); or the
                name of another component of this kind, for which ``name`` is another name.
            summary: one line for listings; of another name, what its user should know, which is
                noted in every run that uses it.

        Raises:
            ValueError: an argument is not of that form.
        """


@hookspec
def register_objectives(register: Register) -> None:
    """Register losses that make a model forget the forget set when they are minimised over it.

    Each is a subclass of :class:`~amnesis.contracts.LikelihoodTerm` if it reads log-probabilities
    of the label tokens only, and of :class:`~amnesis.contracts.Term` otherwise.
    """


@hookspec
def register_regularizers(register: Register) -> None:
    """Register losses that make a model keep the retain set when they are minimised over it.

    They have the contract of objectives, but names of their own. Losses of either kind can be used
    in either stream.
    """


@hookspec
def register_combiners(register: Register) -> None:
    """Register rules that make one gradient of the forget and the retain gradient.

    Each is a subclass of :class:`~amnesis.contracts.ProjectionCombiner` if inner products of the
    gradients suffice, and of :class:`~amnesis.contracts.ElementwiseCombiner` otherwise.
    """


@hookspec
def register_perturbations(register: Register) -> None:
    """Register where the forget stream's gradient may be taken, in place of the model's weights.

    Each is a subclass of :class:`~amnesis.contracts.WeightPerturbation` if it moves weights, and of
    :class:`~amnesis.contracts.ActivationPerturbation` if it moves a block's output.
    """


@hookspec
def register_weights(register: Register) -> None:
    """Register rules that a term's weight follows along a run, such as a Lagrange multiplier.

    Each is a subclass of :class:`~amnesis.contracts.Weight`.
    """


@hookspec
def register_procedures(register: Register) -> None:
    """Register ways to make a model forget other than training on two streams.

    Each is a subclass of :class:`~amnesis.contracts.Procedure`, and stands in a recipe in the
    objective's place.
    """


@hookspec
def register_probes(register: Register) -> None:
    """Register observers of a run's gradients and updates.

    Each is a subclass of :class:`~amnesis.contracts.Probe`. It changes nothing, and may fail
    without stopping the run.
    """


@hookspec
def register_metrics(register: Register) -> None:
    """Register numbers about what a model knows.

    Each is a subclass of :class:`~amnesis.contracts.ExampleMetric`,
    :class:`~amnesis.contracts.SetMetric`, :class:`~amnesis.contracts.DerivedMetric` or
    :class:`~amnesis.contracts.ChangeMetric`.
    """


@hookspec
def register_benchmarks(register: Register) -> None:
    """Register data sets to forget and to retain, each with the evaluation of a model on them.

    Each is a subclass of :class:`~amnesis.contracts.Benchmark`.
    """


@hookspec
def register_attacks(register: Register) -> None:
    """Register attempts to recover from a model what it was made to forget.

    Each is a subclass of :class:`~amnesis.contracts.Attack`.
    """


@hookspec
def register_reports(register: Register) -> None:
    """Register what tells a person of a finished run: a verdict in its results, pages beside them.

    Each is a subclass of :class:`~amnesis.contracts.Report`, without hyper-parameters that lack a
    default: a run calls every report that is registered. It may fail without losing the run.
    """


@hookspec
def register_commands(register: Register) -> None:
    """Register commands of ``amnesis``; each is a function whose parameters typer understands.

    Its docstring is its help text. A parameter ``context: typer.Context`` gives access to the
    registry, by :func:`amnesis.cli.registry_of`. The options ``--debug`` and ``--without-plugin``
    are taken off the command line wherever they stand, and never reach a command.
    """
