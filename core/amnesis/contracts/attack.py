"""Attacks: attempts to recover from a model what it was made to forget."""

from __future__ import annotations

from abc import abstractmethod

from amnesis.contracts.benchmark import Benchmark, Evaluation, EvaluationSettings, Subject
from amnesis.contracts.component import Component
from amnesis.progress import ProgressCallback


class Attack(Component):
    """An attempt to recover what was forgotten: changes a model, or its use, and evaluates it."""

    @abstractmethod
    def attack(
        self,
        subject: Subject,
        benchmark: Benchmark,
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
    ) -> Evaluation:
        """Return the evaluation of a subject under attack; the subject itself must not change.

        To evaluate, call ``benchmark.evaluate(attacked_subject, settings, progress)``. An attack of
        several steps may add values from along the way, named ``set/metric@step``.
        """

    def cost(self, benchmark: Benchmark, settings: EvaluationSettings) -> str | None:
        """Return in words what the attack takes, as ``--check`` shows it; None where it says none.

        It is asked before a weight is loaded, and may say what the attack's intervals will show.
        """
        return None

    def metric_keys(self) -> tuple[str, ...] | None:
        """Return the metrics that its values are named by, as in ``set/key``; None: not known.

        A policy that names another one is refused before a weight is loaded.
        """
        return None
