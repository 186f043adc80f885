"""Metrics: numbers about what a model knows, read from one shared pass over a set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from amnesis.contracts.component import Component

if TYPE_CHECKING:
    from numpy import bool_, float64
    from numpy.typing import NDArray

Reading = Literal["likelihood", "generation"]


@dataclass(frozen=True)
class Answer:
    """What a model says of one example.

    Attributes:
        example: the row, with the benchmark's own field names.
        logps: log-probability of each label token, end of sequence included, ``(tokens,)``.
        correct: whether the label was the most likely token there, ``(tokens,)``.
        generated: the greedy continuation of the prompt; None where none was asked for.
    """

    example: Mapping[str, Any]
    logps: NDArray[float64]
    correct: NDArray[bool_]
    generated: str | None = None


class Metric(Component):
    """A number about a model on a set; ``reads`` decides which pass over the set is made."""

    reads: ClassVar[Reading] = "likelihood"


class ExampleMetric(Metric):
    """A metric that has a value for each example; its value on a set is their mean."""

    @abstractmethod
    def value(self, answer: Answer) -> float:
        """Give the value of one example."""
