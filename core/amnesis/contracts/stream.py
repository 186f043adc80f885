"""The loss of a stream: weighted terms, reduced once per optimizer step."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

from amnesis.contracts.term import LikelihoodTerm, TermBase
from amnesis.data.batches import MeanOver
from amnesis.errors import NonFiniteError, RecipeError
from amnesis.scoring.scores import Needs, Scores

if TYPE_CHECKING:
    from torch import Tensor

    from amnesis.data.batches import Batch
    from amnesis.data.templates import Row

TextOf = Callable[[Mapping[str, Any]], str]
# How many items a mean runs over in one optimizer step, by text and by what it is over.
Counts = dict[tuple[str, MeanOver], int]


@dataclass(frozen=True)
class Schedule:
    """A weight along a run, given by ``points`` (step, weight) in the order of steps.

    It is linear between points, and constant before the first and after the last.
    """

    points: tuple[tuple[int, float], ...]

    def at(self, step: int) -> float:
        """Return the weight at a step, counted from 0."""
        after = bisect_right(self.points, step, key=lambda point: point[0])
        if after in (0, len(self.points)):
            return self.points[max(after - 1, 0)][1]
        (start, a), (end, b) = self.points[after - 1 : after + 1]
        return a + (b - a) * (step - start) / (end - start)


@dataclass(frozen=True)
class WeightedTerm:
    """A term and its weight in a stream's loss, which may follow a schedule."""

    term: TermBase
    weight: float = 1.0
    schedule: Schedule | None = None

    def at(self, step: int) -> WeightedTerm:
        """Return the term with its weight at a step, counted from 0."""
        return self if self.schedule is None else replace(self, weight=self.schedule.at(step))


@dataclass(frozen=True)
class StreamLoss:
    """The loss of a stream: the sum of its terms' means, each times its weight.

    ``name`` (``forget``, ``retain``, or ``train`` when finetuning) begins the names of its values.
    """

    name: str
    terms: tuple[WeightedTerm, ...]

    @property
    def needs(self) -> Needs:
        """The union of what its terms need."""
        return reduce(lambda a, b: a | b, (t.term.needs for t in self.terms))

    @property
    def risk_multiple(self) -> float | None:
        """c if this loss is c times the risk R = −mean ℓ of the same batch, else None."""
        if len(self.terms) != 1 or self.terms[0].term.risk_multiple is None:
            return None
        return self.terms[0].weight * self.terms[0].term.risk_multiple

    def at(self, step: int) -> StreamLoss:
        """Return the loss with its weights at a step, counted from 0."""
        return replace(self, terms=tuple(t.at(step) for t in self.terms))

    def scheduled_weights(self) -> dict[str, float]:
        """Return the weights that follow a schedule, by the names that they are logged under."""
        return {
            f"{self.name}/weight/{t.term.registered_name}": t.weight
            for t in self.terms
            if t.schedule is not None
        }

    def counts(self, batches: Sequence[Batch]) -> Counts:
        """Return how many items each term's mean runs over in these micro-batches of a step.

        The answers' label tokens, which the risk is a mean over, are always among them.
        """
        divisors: set[tuple[str, MeanOver]] = {("answer", "tokens")}
        divisors |= {(t.term.sequence, t.term.mean_over) for t in self.terms}
        return {
            (sequence, over): sum(batch.of(sequence).count(over) for batch in batches)
            for sequence, over in divisors
        }

    def __call__(self, scores: Scores, counts: Counts) -> Tensor:
        """Return a micro-batch's share of the step's loss; the shares of a step add up to it.

        ``counts`` are those of all micro-batches and ranks of the step.

        Raises:
            NonFiniteError: a term's value is infinite or NaN.
        """
        total: Tensor | None = None
        for weighted in self.terms:
            term = weighted.term
            share = term.summed(scores) / max(counts[term.sequence, term.mean_over], 1)
            if not share.isfinite():
                raise NonFiniteError(
                    f"the {self.name} stream's loss is {share.item()}: term {term.label}"
                )
            total = weighted.weight * share if total is None else total + weighted.weight * share
        assert total is not None  # noqa: S101  # a stream has at least one term
        return total


def further_texts(losses: Sequence[StreamLoss], rows: Sequence[Row]) -> dict[str, TextOf]:
    """Return the functions that make the further texts which losses read of a row, by name.

    Raises:
        RecipeError: two terms make different texts of one name.
    """
    texts: dict[str, TextOf] = {}
    for term in (weighted.term for loss in losses for weighted in loss.terms):
        for name, text_of in term.texts().items():
            first = texts.setdefault(name, text_of)
            if first is not text_of and any(first(row) != text_of(row) for row in rows):
                raise RecipeError(
                    f"{term.label} and another term ask for different texts {name!r} of the same "
                    f"rows; give both the same hyper-parameters, or use them apart"
                )
    return texts


class Risk(LikelihoodTerm):
    """The risk R = ``−mean_i ℓ_i`` as a term, which finetuning minimises."""

    formula: ClassVar[str] = "−mean_i ℓ_i"
    risk_multiple: ClassVar[float | None] = 1.0

    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return ``−ℓ_i``, ``(batch, tokens)``."""
        return -logps


def risk(scores: Scores, counts: Counts) -> Tensor:
    """Return a micro-batch's share of the step's risk R = −mean ℓ over the label tokens.

    ``counts`` are those of all micro-batches and ranks of the step.
    """
    share: Tensor = -scores.logps.sum() / max(counts["answer", "tokens"], 1)
    return share
