"""Attacks: attempts to bring back what a model was made to forget."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

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
