"""Resolution: the components that a recipe or a caller names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amnesis.contracts.attack import Attack
from amnesis.contracts.combiner import Combiner
from amnesis.contracts.component import Component
from amnesis.contracts.metric import ChosenMetric
from amnesis.contracts.perturbation import Perturbation
from amnesis.contracts.probe import Probe
from amnesis.contracts.procedure import Procedure
from amnesis.contracts.stream import Schedule, StreamLoss, WeightedTerm
from amnesis.contracts.term import TermBase
from amnesis.contracts.weight import Weight
from amnesis.discovery.entry import contract_of
from amnesis.errors import RecipeError

if TYPE_CHECKING:
    from amnesis.discovery.registry import Registry

# "wga", {"name": "wga", "beta": 1.0}, WGA(beta=1.0), or, for a stream, a list of those.
Choice = str | Mapping[str, Any] | Component | Sequence[Any]
# Either stream takes objectives and regularizers; of two with one name, this order decides.
_NAMESPACES = {
    "objective": ("objective", "regularizer"),
    "regularizer": ("regularizer", "objective"),
}


@dataclass(frozen=True, kw_only=True)
class Method:
    """The components of a run, resolved from their names.

    Attributes:
        forget: the loss of the forget stream.
        retain: the loss of the retain stream; None where there is none.
        combiner: how the two gradients become one; None: they are added.
        perturbation: where the forget gradient is taken; None: at the model's own weights.
        procedure: what changes the model in place of the streams, which are then empty.
        probes: the observers of the run.
        registry: the registry that the names were looked up in.
        attacks: the attacks on the model before and after.
        metrics: the metrics before and after; None: the benchmark's own.
        during: the metrics along the run; None: those of before and after.
    """

    forget: StreamLoss
    retain: StreamLoss | None
    combiner: Combiner | None
    probes: tuple[Probe, ...]
    registry: Registry
    perturbation: Perturbation | None = None
    procedure: Procedure | None = None
    attacks: tuple[Attack, ...] = ()
    metrics: tuple[ChosenMetric, ...] | None = None
    during: tuple[ChosenMetric, ...] | None = None

    @classmethod
    def of(
        cls,
        objective: Choice | None,
        regularizer: Choice | None,
        combiner: Choice | None,
        robust: Choice | None,
        probes: Sequence[Choice],
        registry: Registry,
    ) -> Method:
        """Return the method that these names stand for.

        Raises:
            AmnesisError: a name or a hyper-parameter is wrong, or there is no objective.
        """
        if objective is None:
            raise RecipeError("name an objective, such as objective='npo'")
        return cls(
            forget=build_stream("forget", "objective", objective, registry),
            retain=None
            if regularizer is None
            else build_stream("retain", "regularizer", regularizer, registry),
            combiner=None if combiner is None else build("combiner", combiner, registry),
            perturbation=None if robust is None else build("perturbation", robust, registry),
            probes=tuple(build("probe", probe, registry) for probe in probes),
            registry=registry,
        )

    def notes(self) -> list[str]:
        """Return what is to be said of names that components were created by."""
        losses = [loss for loss in (self.forget, self.retain) if loss is not None]
        components: list[Component | None] = [t.term for loss in losses for t in loss.terms]
        components += [self.combiner, self.perturbation, self.procedure]
        components += [*self.probes, *self.attacks]
        return [component.note for component in components if component and component.note]

    def __post_init__(self) -> None:
        if self.combiner is not None and self.retain is None:
            raise RecipeError("a combiner needs a retain stream: give a regularizer, such as 'kl'")


def build(kind: str, choice: Choice, registry: Registry) -> Any:
    """Return the component of a kind that ``choice`` names; a component is returned as it is.

    Raises:
        RecipeError: the choice is neither a name, a mapping with ``name``, nor a component of this
            kind, or a hyper-parameter is wrong.
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
    namespace = next((k for k in namespaces if registry.find(choice["name"], (k,))), kind)
    return registry.create(namespace, choice["name"], **hyper)


def build_stream(stream: str, kind: str, choice: Choice, registry: Registry) -> StreamLoss:
    """Return the loss of a stream, made of one term or of a list of terms with weights.

    ``kind`` is the namespace that names are looked up in first. A weight is a number, a mapping of
    steps to numbers, or a mapping with the ``name`` of a registered weight.

    Raises:
        RecipeError: the list is empty, or a choice, weight or hyper-parameter is wrong.
        PluginError: a name does not resolve.
    """
    is_list = isinstance(choice, Sequence) and not isinstance(choice, str)
    choices: Sequence[Any] = choice if is_list else [choice]  # type: ignore[assignment]
    if not choices:
        raise RecipeError(f"{kind}: the list is empty; name at least one term")
    terms = []
    for one in choices:
        weight: Any = 1.0
        if isinstance(one, Mapping) and "weight" in one:
            weight = one["weight"]
            one = {key: value for key, value in one.items() if key != "weight"}
        terms.append(_add_weight(kind, build(kind, one, registry), weight, registry))
    return StreamLoss(stream, tuple(terms))


def build_metrics(
    choices: Sequence[Choice | ChosenMetric], registry: Registry, *, optional: bool = False
) -> tuple[ChosenMetric, ...]:
    """Return the metrics to evaluate; ``set/name`` is evaluated on one set, ``name`` on all.

    ``optional`` leaves out, with a note, a metric that a set does not allow.

    Raises:
        RecipeError: a hyper-parameter is wrong.
        PluginError: a name does not resolve.
    """
    metrics: list[ChosenMetric] = []
    for choice in choices:
        if isinstance(choice, ChosenMetric):
            metrics.append(choice)
            continue
        set_name: str | None = None
        if isinstance(choice, str) and "/" in choice:
            set_name, _, choice = choice.rpartition("/")  # a set's name may have slashes
        metric = build("metric", choice, registry)
        metrics.append(ChosenMetric(metric=metric, set_name=set_name, optional=optional))
    return tuple(metrics)


def _add_weight(kind: str, term: TermBase, weight: Any, registry: Registry) -> WeightedTerm:
    if _is_number(weight):
        return WeightedTerm(term, float(weight))
    if isinstance(weight, Weight) or (isinstance(weight, Mapping) and "name" in weight):
        return WeightedTerm.by_rule(term, build("weight", weight, registry))
    points = _points(weight) if isinstance(weight, Mapping) else []
    if not points:
        raise RecipeError(
            f"{kind}: weight must be a number, a mapping of steps to numbers such as "
            f"{{0: 1.0, 100: 0.1}}, or a rule such as {{name: dual}}, not {weight!r}"
        )
    schedule = Schedule(tuple(sorted(points)))
    return WeightedTerm(term, schedule.at(0), schedule)


def _points(weight: Mapping[Any, Any]) -> list[tuple[int, float]]:
    """Return a schedule's points (step, weight); none at all if one of them is not valid."""
    points = [
        (int(step), float(value))
        for step, value in weight.items()
        if str(step).isdecimal() and _is_number(value)
    ]
    return points if len({step for step, _ in points}) == len(weight) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
