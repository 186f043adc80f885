"""A stream's loss: weighted terms, reduced once per optimizer step."""

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
Counts = dict[tuple[str, MeanOver], int]


@dataclass(frozen=True)
class Schedule:
    """A weight along a run, ``points`` of (step, weight) in order.

    Linear between two points, and constant before the first and after the last.
    """

    points: tuple[tuple[int, float], ...]

    def at(self, step: int) -> float:
        """Return the weight of a step, counted from 0."""
        after = bisect_right(self.points, step, key=lambda point: point[0])
        if after in (0, len(self.points)):
            return self.points[max(after - 1, 0)][1]
        (start, a), (end, b) = self.points[after - 1 : after + 1]
        return a + (b - a) * (step - start) / (end - start)


@dataclass(frozen=True)
class WeightedTerm:
    """A term and its weight in the stream's loss, which a ``schedule`` may move."""

    term: TermBase
    weight: float = 1.0
    schedule: Schedule | None = None

    def at(self, step: int) -> WeightedTerm:
        """Return the term with its weight at a step."""
        return self if self.schedule is None else replace(self, weight=self.schedule.at(step))


@dataclass(frozen=True)
class StreamLoss:
    """The loss of the forget or of the retain stream."""

    name: str
    terms: tuple[WeightedTerm, ...]

    @property
    def needs(self) -> Needs:
        """All that its terms read."""
        return reduce(lambda a, b: a | b, (t.term.needs for t in self.terms))

    @property
    def risk_multiple(self) -> float | None:
        """c where this loss is c times the risk R = −mean ℓ of the same batch, else None."""
        if len(self.terms) != 1 or self.terms[0].term.risk_multiple is None:
            return None
        return self.terms[0].weight * self.terms[0].term.risk_multiple

    def at(self, step: int) -> StreamLoss:
        """Return the loss of a step, its weights where their schedules have them then."""
        return replace(self, terms=tuple(t.at(step) for t in self.terms))

    def scheduled_weights(self) -> dict[str, float]:
        """Return the weights that move, under the names that they are logged by."""
        return {
            f"{self.name}/weight/{t.term.registered_name}": t.weight
            for t in self.terms
            if t.schedule is not None
        }

    def counts(self, batches: Sequence[Batch]) -> Counts:
        """Count, over the micro-batches of a step, what each term's mean runs over."""
        wanted: set[tuple[str, MeanOver]] = {("answer", "tokens")}
        wanted |= {(t.term.sequence, t.term.mean_over) for t in self.terms}
        return {
            (sequence, over): sum(batch.of(sequence).count(over) for batch in batches)
            for sequence, over in wanted
        }

    def __call__(self, scores: Scores, counts: Counts) -> Tensor:
        """Return one micro-batch's share of the step's loss: the shares add up to the mean.

        Raises:
            NonFiniteError: a term's value is not a finite number.
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
    """Return the further texts that losses of one set read, by name: how each follows from a row.

    Raises:
        RecipeError: two terms ask for different texts of one name.
    """
    texts: dict[str, TextOf] = {}
    for term in (weighted.term for loss in losses for weighted in loss.terms):
        for name, of in term.texts().items():
            known = texts.setdefault(name, of)
            if known is not of and any(known(row) != of(row) for row in rows):
                raise RecipeError(
                    f"{term.label} and another term ask for different texts {name!r} of the same "
                    f"rows; give both the same hyper-parameters, or use them apart"
                )
    return texts


class Risk(LikelihoodTerm):
    """The risk R itself as a term: ``−mean_i ℓ_i``, what finetuning minimises."""

    formula: ClassVar[str] = "−mean_i ℓ_i"
    risk_multiple: ClassVar[float | None] = 1.0

    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return ``−ℓ_i``, ``(batch, tokens)``."""
        return -logps


def risk(scores: Scores, counts: Counts) -> Tensor:
    """Return one micro-batch's share of the risk R = −mean ℓ over the step's label tokens."""
    share: Tensor = -scores.logps.sum() / max(counts["answer", "tokens"], 1)
    return share
