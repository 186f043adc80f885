"""Attacks: attempts to bring back what a model was made to forget."""

from __future__ import annotations

from abc import abstractmethod

from amnesis.contracts.benchmark import Benchmark, Evaluation, EvaluationSettings, Subject
from amnesis.contracts.component import Component
from amnesis.progress import ProgressCallback


class Attack(Component):
    """Evaluates a model again after, or while, something was done to it."""

    @abstractmethod
    def attack(
        self,
        subject: Subject,
        benchmark: Benchmark,
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
    ) -> Evaluation:
        """Attack a copy of the subject and evaluate it; the subject itself is left as it was.

        An attack of several steps names the values along the way ``set/metric@step``.
        """
