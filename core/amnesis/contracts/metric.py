"""Metrics: numbers about what a model knows, read from one shared pass over all sets."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from amnesis.contracts.component import Component

if TYPE_CHECKING:
    from numpy import bool_, float64
    from numpy.typing import NDArray

Reading = Literal["likelihood", "generation", "gradient"]


@dataclass(frozen=True)
class TokenScores:
    """What a model says of one text after a prompt.

    Attributes:
        logps: log-probability of each label token, end of sequence included, ``(tokens,)``.
        correct: whether the label was the most likely token there, ``(tokens,)``.
        moments: mean and standard deviation of the log-probability under the model's own
            distribution over the vocabulary, ``(tokens, 2)``; None where none was asked for.
    """

    logps: NDArray[float64]
    correct: NDArray[bool_]
    moments: NDArray[float64] | None = None


@dataclass(frozen=True)
class Answer:
    """What a model says of one example.

    Attributes:
        example: the row, with the benchmark's own field names.
        logps: log-probability of each label token, end of sequence included, ``(tokens,)``.
        correct: whether the label was the most likely token there, ``(tokens,)``.
        generated: the greedy continuation of the prompt; None where none was asked for.
        text: the answer that the labels spell.
        moments: as in :class:`TokenScores`; None where none was asked for.
        further: other texts in the answer's place (``perturbed_answer``), by the row's field.
        gradient_norm: norm of the gradient of the mean log-probability; None where not asked for.
    """

    example: Mapping[str, Any]
    logps: NDArray[float64]
    correct: NDArray[bool_]
    generated: str | None = None
    text: str = ""
    moments: NDArray[float64] | None = None
    further: Mapping[str, tuple[TokenScores, ...]] = field(default_factory=dict)
    gradient_norm: float | None = None


class Metric(Component):
    """A number about a model; the subclass says what it is read from."""

    reads: ClassVar[Reading] = "likelihood"

    @property
    def key(self) -> str:
        """Its name in results, ``set/key``; extended where variants may stand side by side."""
        if self._registration is not None:
            return self._registration.name
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()


class ReadingMetric(Metric):
    """A metric that is read from a set's answers; ``reads`` decides which pass is made over it.

    ``texts`` names the row fields that must hold further texts to score in the answer's place
    (text or a list of it), ``optional_texts`` those that are scored where a row has them, and
    ``reads_moments`` asks for the vocabulary's moments. What nobody asks for is not computed.
    """

    texts: ClassVar[tuple[str, ...]] = ()
    optional_texts: ClassVar[tuple[str, ...]] = ()
    reads_moments: ClassVar[bool] = False

    def remark(self, answers: Sequence[Answer]) -> str | None:
        """Say what a reader must know of its value on a set; None: nothing, as most."""
        return None


class ExampleMetric(ReadingMetric):
    """A metric that has a value for each example; its value on a set is their mean."""

    @abstractmethod
    def value(self, answer: Answer) -> float:
        """Return the value of one example."""


class SetMetric(ReadingMetric):
    """A metric of a whole set that is no mean over examples, such as perplexity."""

    @abstractmethod
    def value(self, answers: Sequence[Answer]) -> float:
        """Return the value of one set."""


ExampleValues = Mapping[tuple[str, str], "NDArray[float64]"]


class DerivedMetric(Metric):
    """A metric made of the example values of several sets, or of those of another model too.

    ``parts`` names the sets and, for each, the example metrics that it is made of: they are
    measured and reported beside it. ``needs_retrained`` says that the same parts of a model that
    never saw the forget set are read as well. Its name in results carries no set.
    """

    needs_retrained: ClassVar[bool] = False

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, tuple[ExampleMetric, ...]]:
        """The example metrics that it is made of, by set."""

    @abstractmethod
    def value(self, own: ExampleValues, retrained: ExampleValues | None) -> float:
        """Return the value from ``{(set, key): (examples,)}`` of this and of the retrained model."""


class ChangeMetric(Metric):
    """A metric of how another metric's value changed from before a run to after it."""

    @abstractmethod
    def value(self, before: float, after: float) -> float:
        """Return the value; not a number where it is not defined."""


@dataclass(frozen=True, kw_only=True)
class ChosenMetric:
    """A metric, and where it is wanted.

    Attributes:
        metric: the metric.
        set_name: the one set that it is read from; None: every set that allows it.
        optional: whether a set or field that it lacks is noted; it is refused otherwise.
    """

    metric: Metric
    set_name: str | None = None
    optional: bool = False
