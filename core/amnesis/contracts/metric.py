"""Metrics: numbers about what a model knows, computed from one shared pass over each set."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from amnesis.contracts.component import Component

if TYPE_CHECKING:
    from pathlib import Path

    from numpy import bool_, float64
    from numpy.typing import NDArray

Reading = Literal["likelihood", "generation", "gradient"]
ValueKind = Literal["number", "share", "p_value"]


@dataclass(frozen=True)
class TokenScores:
    """A model's scores of one text after a prompt.

    Attributes:
        logps: the log-probability of each label token, end of sequence included, ``(tokens,)``.
        correct: whether the label is the most likely token, ``(tokens,)``.
        moments: mean and standard deviation of the log-probability over the vocabulary, under the
            model's own distribution, ``(tokens, 2)``; None unless a metric reads them.
    """

    logps: NDArray[float64]
    correct: NDArray[bool_]
    moments: NDArray[float64] | None = None


@dataclass(frozen=True)
class Answer:
    """What a model says of one example; what no metric reads is None or empty.

    Attributes:
        example: the row, with the benchmark's own field names.
        logps: the log-probability of each label token, end of sequence included, ``(tokens,)``.
        correct: whether the label is the most likely token, ``(tokens,)``.
        generated: the greedy continuation of the prompt.
        text: the answer that the label tokens spell.
        moments: as in :class:`TokenScores`.
        further: scores of other texts in the answer's place, by the row's field
            (``perturbed_answer``).
        gradient_norm: the norm of the gradient of the mean log-probability.
        has_end: whether the last label token is the end of sequence (of a chat: of the turn).
    """

    example: Mapping[str, Any]
    logps: NDArray[float64]
    correct: NDArray[bool_]
    generated: str | None = None
    text: str = ""
    moments: NDArray[float64] | None = None
    further: Mapping[str, tuple[TokenScores, ...]] = field(default_factory=dict)
    gradient_norm: float | None = None
    has_end: bool = False


class Metric(Component):
    """A number about a model. Derive from one of the subclasses, which say what it is made from.

    ``reads`` is what is computed for each example: log-probabilities, a generated answer, or the
    norm of a gradient. ``value_kind`` decides on intervals: a ``share`` lies in [0, 1] by its
    nature, a probability included; a ``p_value`` has none, for it is no property of the model that
    other examples would tell alike.
    """

    reads: ClassVar[Reading] = "likelihood"
    value_kind: ClassVar[ValueKind] = "number"

    @property
    def key(self) -> str:
        """The metric's name in results, as in ``set/key``.

        Override it to tell apart variants that may be chosen together.
        """
        if self._registration is not None:
            return self._registration.name
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()


class ReadingMetric(Metric):
    """A metric of a set's answers.

    ``texts`` names fields of the row with further texts (a text, or a list of texts) to score in
    the answer's place; a row must have them. ``optional_texts`` are scored where a row has them.
    ``reads_moments`` declares that :attr:`Answer.moments` are read. What no metric declares is not
    computed.
    """

    texts: ClassVar[tuple[str, ...]] = ()
    optional_texts: ClassVar[tuple[str, ...]] = ()
    reads_moments: ClassVar[bool] = False

    def remark(self, answers: Sequence[Answer]) -> str | None:
        """Return a note on the value on a set, for readers of the results, or None."""
        return None


class ExampleMetric(ReadingMetric):
    """A metric with a value for each example; its value on a set is their mean.

    ``first_process_only`` declares that one process of several computes it for all, as it asks
    somebody outside.
    """

    first_process_only: ClassVar[bool] = False

    @abstractmethod
    def value(self, answer: Answer) -> float:
        """Return the value of one example."""

    def values(self, answers: Sequence[Answer], folder: Path | None = None) -> Sequence[float]:
        """Return the value of each example, in order.

        Override it where many are best taken at once. What is expensive may be kept in ``folder``,
        the evaluation's cache; None: nowhere.
        """
        return [self.value(answer) for answer in answers]


class SetMetric(ReadingMetric):
    """A metric of a whole set that is not a mean over examples, such as perplexity."""

    @abstractmethod
    def value(self, answers: Sequence[Answer]) -> float:
        """Return the value of a set, given the answers to all of its examples."""


# The values of each example, (examples,), by set and metric key.
ExampleValues = Mapping[tuple[str, str], "NDArray[float64]"]


class DerivedMetric(Metric):
    """A metric computed from other metrics' values for each example, of one or several sets.

    Those metrics are evaluated and reported beside it. ``needs_retrained`` declares that it also
    reads their values of a model that never saw the forget set. Its name in results has no set.
    """

    needs_retrained: ClassVar[bool] = False

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, tuple[ExampleMetric, ...]]:
        """The metrics that it is computed from, by set."""

    @abstractmethod
    def value(self, own: ExampleValues, retrained: ExampleValues | None) -> float:
        """Return the value, given those of :attr:`parts`: ``{(set, key): (examples,)}``.

        ``own`` is of the model that is evaluated; ``retrained`` is of the retrained model, and None
        unless ``needs_retrained``.
        """


class ChangeMetric(Metric):
    """A metric of how another metric's value changes over a run."""

    @abstractmethod
    def value(self, before: float, after: float) -> float:
        """Return the value, given the other metric's before and after; NaN if it is undefined."""


@dataclass(frozen=True, kw_only=True)
class ChosenMetric:
    """A metric to evaluate, and on which sets.

    Attributes:
        metric: the metric.
        set_name: the only set that it is evaluated on; None: every set that allows it.
        optional: whether a missing set or field leaves the metric out with a note, instead of
            being an error.
    """

    metric: Metric
    set_name: str | None = None
    optional: bool = False


def metrics_of_retrained(metrics: Iterable[ChosenMetric]) -> tuple[ChosenMetric, ...]:
    """Return what is evaluated of a retrained model so that others can be compared with it.

    A metric that compares with one is left to them; its parts stand in its place.
    """
    chosen: list[ChosenMetric] = []
    for choice in metrics:
        if isinstance(choice.metric, DerivedMetric) and choice.metric.needs_retrained:
            parts = [(name, part) for name, of in choice.metric.parts.items() for part in of]
            chosen += [replace(choice, metric=part, set_name=name) for name, part in parts]
        else:
            chosen.append(choice)
    return tuple(chosen)
