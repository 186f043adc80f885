"""From what a person writes (a name, a mapping, a component, a list) to components."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amnesis.contracts.attack import Attack
from amnesis.contracts.combiner import Combiner
from amnesis.contracts.component import Component
from amnesis.contracts.metric import ChosenMetric
from amnesis.contracts.probe import Probe
from amnesis.contracts.stream import Schedule, StreamLoss, WeightedTerm
from amnesis.contracts.term import TermBase
from amnesis.discovery.entry import contract_of
from amnesis.errors import RecipeError

if TYPE_CHECKING:
    from amnesis.discovery.registry import Registry

# "wga", {"name": "wga", "beta": 1.0}, WGA(beta=1.0), or a list of those
Choice = str | Mapping[str, Any] | Component | Sequence[Any]
# Any term may stand in either stream; where a name is in both namespaces, its own comes first.
_NAMESPACES = {
    "objective": ("objective", "regularizer"),
    "regularizer": ("regularizer", "objective"),
}


@dataclass(frozen=True, kw_only=True)
class Method:
    """What was chosen, as components: how to forget, to retain and to combine, what to watch.

    Attributes:
        forget: the forget stream's loss.
        retain: the retain stream's; None where there is none.
        combiner: how two gradients become one; None: they are added.
        probes: what observes the run.
        attacks: what is tried on the model before and after.
        metrics: what is evaluated before and after; None: as the benchmark says.
        during: what is evaluated along the run; None: the same.
        registry: where the names came from.
    """

    forget: StreamLoss
    retain: StreamLoss | None
    combiner: Combiner | None
    probes: tuple[Probe, ...]
    registry: Registry
    attacks: tuple[Attack, ...] = ()
    metrics: tuple[ChosenMetric, ...] | None = None
    during: tuple[ChosenMetric, ...] | None = None

    def __post_init__(self) -> None:
        if self.combiner is not None and self.retain is None:
            raise RecipeError("a combiner needs a retain stream: give a regularizer, such as 'kl'")


def build(kind: str, choice: Choice, registry: Registry) -> Any:
    """Return the component of a kind that ``choice`` names, or is.

    Raises:
        RecipeError: the choice is none of the forms, or a hyper-parameter is wrong.
        PluginError: the name does not resolve.
    """
    contract = contract_of(kind)
    if isinstance(choice, Component):
        if not isinstance(choice, contract):
            raise RecipeError(f"{kind}: {choice.label} is not a {contract.__name__}")
        return choice
    if isinstance(choice, str):
        choice = {"name": choice}
    if not isinstance(choice, Mapping) or not isinstance(choice.get("name"), str):
        raise RecipeError(
            f"{kind}: give a name, or a mapping with 'name' and hyper-parameters, not {choice!r}"
        )
    hyper = {key: value for key, value in choice.items() if key != "name"}
    namespaces = _NAMESPACES.get(kind, (kind,))
    found = next((k for k in namespaces if registry.find(choice["name"], (k,))), kind)
    return registry.create(found, choice["name"], **hyper)


def build_stream(stream: str, kind: str, choice: Choice, registry: Registry) -> StreamLoss:
    """Return a stream's loss: one term, or several with their weights."""
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
        terms.append(_weighted(kind, build(kind, one, registry), weight))
    return StreamLoss(stream, tuple(terms))


def build_metrics(
    choices: Sequence[Choice | ChosenMetric], registry: Registry, *, optional: bool = False
) -> tuple[ChosenMetric, ...]:
    """Return metrics and where they are wanted: ``name`` on every set, ``set/name`` on one.

    Raises:
        RecipeError: a hyper-parameter is wrong.
        PluginError: a name does not resolve.
    """
    chosen: list[ChosenMetric] = []
    for choice in choices:
        if isinstance(choice, ChosenMetric):
            chosen.append(choice)
            continue
        set_name: str | None = None
        if isinstance(choice, str) and "/" in choice:
            set_name, _, choice = choice.partition("/")
        metric = build("metric", choice, registry)
        chosen.append(ChosenMetric(metric=metric, set_name=set_name, optional=optional))
    return tuple(chosen)


def _weighted(kind: str, term: TermBase, weight: Any) -> WeightedTerm:
    """Return a term with its weight: a number, or a mapping of steps to numbers."""
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
