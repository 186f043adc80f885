"""Attacks: attempts to bring back what a model was made to forget."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

from amnesis.contracts.benchmark import Benchmark, Evaluation, EvaluationSettings, Subject
from amnesis.contracts.component import Component


class Attack(Component):
    """Judges a model again after, or while, something was done to it."""

    @abstractmethod
    def attack(
        self,
        subject: Subject,
        benchmark: Benchmark,
        settings: EvaluationSettings,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Evaluation:
        """Attack a copy of the subject and judge it; the subject itself is left as it was.

        An attack that goes on for a while gives the values along the way as ``set/metric@step``.
        """


def keyed(attacks: Sequence[Attack]) -> dict[str, Attack]:
    """Give each attack a name in results: where several have one name, with what sets them apart.

    Asking twice for the very same is asking once.
    """
    distinct: list[Attack] = []
    for attack in attacks:
        if attack not in distinct:
            distinct.append(attack)
    found: dict[str, Attack] = {}
    for attack in distinct:
        name = attack.registered_name
        own = name + _apart(attack, [a for a in distinct if a.registered_name == name])
        found[own if own not in found else f"{own} of {attack.label}"] = attack
    return found


def _apart(attack: Attack, namesakes: Sequence[Attack]) -> str:
    """Give the hyper-parameters that are not the default, and not the same in all namesakes."""
    other = []
    for name, field in type(attack).model_fields.items():
        value = getattr(attack, name)
        shared = all(getattr(one, name, None) == value for one in namesakes)
        if not shared and value != field.get_default():
            other.append(f"{name}={value}")
    return f"({', '.join(other)})" if other else ""
