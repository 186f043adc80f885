"""From what a person writes (a name, a mapping, a component, a list) to components."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amnesis.contracts import Attack, Combiner, Component, Probe, TermBase
from amnesis.contracts.stream import Schedule, StreamLoss, WeightedTerm
from amnesis.discovery.registry import default_registry
from amnesis.errors import RecipeError

if TYPE_CHECKING:
    from amnesis.discovery.registry import Registry

# "wga", {"name": "wga", "beta": 1.0}, WGA(beta=1.0), or a list of those
Choice = str | Mapping[str, Any] | Component | Sequence[Any]


def component_of(
    kinds: Sequence[str], choice: Choice, registry: Registry | None = None
) -> Component:
    """Build the component that ``choice`` names, of the first of ``kinds`` that knows the name.

    Raises:
        RecipeError: the choice is none of the forms, or a hyper-parameter is wrong.
        PluginError: the name does not resolve.
    """
    if isinstance(choice, Component):
        return choice
    if isinstance(choice, str):
        choice = {"name": choice}
    if not isinstance(choice, Mapping) or not isinstance(choice.get("name"), str):
        raise RecipeError(
            f"{kinds[0]}: give a name, or a mapping with 'name' and hyper-parameters, "
            f"not {choice!r}"
        )
    registry = registry or default_registry()
    hyper = {key: value for key, value in choice.items() if key != "name"}
    kind = next((k for k in kinds if registry.find(choice["name"], (k,))), kinds[0])
    component: Component = registry.create(kind, choice["name"], **hyper)
    return component


def stream_of(
    stream: str, kind: str, choice: Choice, registry: Registry | None = None
) -> StreamLoss:
    """Build a stream's loss. Any term may stand in either stream; its own kind comes first."""
    other = "regularizer" if kind == "objective" else "objective"
    listed = isinstance(choice, Sequence) and not isinstance(choice, str)
    choices: Sequence[Any] = choice if listed else [choice]  # type: ignore[assignment]
    if not choices:
        raise RecipeError(f"{kind}: the list is empty; name at least one term")
    terms = []
    for one in choices:
        weight: Any = 1.0
        if isinstance(one, Mapping) and "weight" in one:
            weight = one["weight"]
            one = {key: value for key, value in one.items() if key != "weight"}
        term = component_of((kind, other), one, registry)
        if not isinstance(term, TermBase):
            raise RecipeError(f"{kind}: {term.label} is not a term")
        terms.append(_weighted(kind, term, weight))
    return StreamLoss(stream, tuple(terms))


def combiner_of(choice: Choice, registry: Registry | None = None) -> Combiner:
    """Build a combiner."""
    combiner = component_of(("combiner",), choice, registry)
    if not isinstance(combiner, Combiner):
        raise RecipeError(f"combiner: {combiner.label} is not a combiner")
    return combiner


def attack_of(choice: Choice, registry: Registry | None = None) -> Attack:
    """Build an attack."""
    attack = component_of(("attack",), choice, registry)
    if not isinstance(attack, Attack):
        raise RecipeError(f"attacks: {attack.label} is not an attack")
    return attack


def probes_of(choices: Sequence[Choice], registry: Registry | None = None) -> tuple[Probe, ...]:
    """Build probes."""
    probes = [component_of(("probe",), choice, registry) for choice in choices]
    for probe in probes:
        if not isinstance(probe, Probe):
            raise RecipeError(f"probes: {probe.label} is not a probe")
    return tuple(probes)  # type: ignore[arg-type]


def _weighted(kind: str, term: TermBase, weight: Any) -> WeightedTerm:
    """Give a term its weight: a number, or a mapping of steps to numbers."""
    if _is_number(weight):
        return WeightedTerm(term, float(weight))
    points = _points(weight) if isinstance(weight, Mapping) else []
    if not points:
        raise RecipeError(
            f"{kind}: weight must be a number, or a mapping of steps to numbers such as "
            f"{{0: 1.0, 100: 0.1}}, not {weight!r}"
        )
    schedule = Schedule(tuple(sorted(points)))
    return WeightedTerm(term, schedule.at(0), schedule)


def _points(weight: Mapping[Any, Any]) -> list[tuple[int, float]]:
    """Read a schedule's points; none at all if one of them is not a step and a number."""
    steps = [int(step) if str(step).isdecimal() else None for step in weight]
    given = zip(steps, weight.values(), strict=True)
    points = [(step, float(w)) for step, w in given if step is not None and _is_number(w)]
    return points if len({step for step, _ in points}) == len(weight) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
