"""From a sweep file to configurations: all of a grid, or one from what a study drew."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amnesis.runs.recipe import Recipe, set_key
from amnesis_evaluation.commands.sweep.settings import Choices, Range, Sweep, label_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

METHOD = "method"


@dataclass(frozen=True)
class Configuration:
    """One point of the space: a method's name where there are any, and values by recipe key."""

    method: str | None
    values: Mapping[str, Any]

    def __str__(self) -> str:
        """Return it in short, ``npo, training.learning_rate=0.0001``."""
        parts = [f"{key}={label_of(value)}" for key, value in self.values.items()]
        return ", ".join([self.method, *parts] if self.method is not None else parts)

    @property
    def parameters(self) -> dict[str, str]:
        """The configuration as a study names it."""
        named = {key: label_of(value) for key, value in self.values.items()}
        return named if self.method is None else {METHOD: self.method, **named}


class Space:
    """What a sweep varies around its base recipe."""

    def __init__(self, sweep: Sweep, base: Mapping[str, Any]) -> None:
        """Take the sweep, and the document of its base recipe."""
        self._sweep, self._base = sweep, base
        self._methods: tuple[str | None, ...] = tuple(sweep.methods) or (None,)

    def domains(self, method: str | None) -> dict[str, Range | Choices]:
        """Return the keys that a method's configurations have values of."""
        own = {} if method is None else self._sweep.methods[method]
        return {**own, **self._sweep.space}

    def grid(self) -> Iterator[Configuration]:
        """Yield every combination once, in an order that is always the same."""
        for method in self._methods:
            domains = self.domains(method)
            for values in itertools.product(*(domain.values() for domain in domains.values())):
                yield Configuration(method, dict(zip(domains, values, strict=True)))

    def size(self) -> int:
        """Return how many configurations there will be."""
        if self._sweep.trials is not None:
            return self._sweep.trials
        return sum(
            math.prod(len(domain.values()) for domain in self.domains(method).values())
            for method in self._methods
        )

    def covering(self) -> Iterator[Configuration]:
        """Yield a few configurations in which each choice and each end of a range occurs."""
        for method in self._methods:
            ends = {
                key: [domain.low, domain.high] if isinstance(domain, Range) else domain.values()
                for key, domain in self.domains(method).items()
            }
            first = {key: values[0] for key, values in ends.items()}
            yield Configuration(method, first)
            for key, values in ends.items():
                for value in values[1:]:
                    yield Configuration(method, {**first, key: value})

    def recipe(self, configuration: Configuration, seed: int) -> Recipe:
        """Return the recipe of a configuration's run with a seed.

        Raises:
            RecipeError: listing what is wrong with it.
        """
        document = copy.deepcopy(dict(self._base))
        # What holds others comes first: objective before objective.beta.
        for key, value in sorted(configuration.values.items(), key=lambda item: item[0].count(".")):
            set_key(document, key, copy.deepcopy(value), key)
        return Recipe.parse({**document, "seed": seed}, str(configuration))

    # -- as a study stores it ---------------------------------------------------------------------

    def methods(self) -> tuple[str, ...]:
        """Return the methods' names; none where the sweep has no methods."""
        return tuple(self._sweep.methods)

    def distributions(self, method: str | None) -> dict[str, BaseDistribution]:
        """Return the distributions of a method's parameters, by the names that a study uses."""
        distribution = _grid_distribution if self._sweep.search == "grid" else _distribution
        return {
            _name(method, key, self._sweep): distribution(domain)
            for key, domain in self.domains(method).items()
        }

    def stored(self, configuration: Configuration) -> dict[str, Any]:
        """Return a grid's configuration by the names and labels that a study uses."""
        named = {
            _name(configuration.method, key, self._sweep): label_of(value)
            for key, value in configuration.values.items()
        }
        return named if configuration.method is None else {METHOD: configuration.method, **named}

    def read(self, parameters: Mapping[str, Any]) -> Configuration | None:
        """Return the configuration that a study's parameters mean; None where some are missing."""
        method = parameters.get(METHOD)
        if (method is None) != (not self._sweep.methods):
            return None
        values = {}
        for key, domain in self.domains(method).items():
            name = _name(method, key, self._sweep)
            if name not in parameters:
                return None
            value = parameters[name]
            if isinstance(domain, Choices) or self._sweep.search == "grid":
                value = {label_of(one): one for one in domain.values()}[value]
            values[key] = value
        return Configuration(method, values)


def _name(method: str | None, key: str, sweep: Sweep) -> str:
    """Return the name of a parameter: a method's own are told apart from another's."""
    return f"{method}/{key}" if method is not None and key in sweep.methods[method] else key


def _grid_distribution(domain: Range | Choices) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution([label_of(value) for value in domain.values()])


def _distribution(domain: Range | Choices) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    if isinstance(domain, Choices):
        return _grid_distribution(domain)
    if domain.whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(float(domain.low), float(domain.high), log=domain.log)
