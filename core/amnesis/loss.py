"""A stream's loss: weighted terms, reduced once per optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, ClassVar

from amnesis.contracts.term import LikelihoodTerm, TermBase
from amnesis.errors import NonFiniteError
from amnesis.scores import MeanOver, Needs, Scores

if TYPE_CHECKING:
    from torch import Tensor

    from amnesis.data import Batch

Counts = dict[tuple[str, MeanOver], int]


@dataclass(frozen=True)
class WeightedTerm:
    """A term and its weight in the stream's loss."""

    term: TermBase
    weight: float = 1.0


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

    def counts(self, batches: Sequence[Batch]) -> Counts:
        """Count, over the micro-batches of a step, what each term's mean runs over."""
        wanted: set[tuple[str, MeanOver]] = {("answer", "tokens")}
        wanted |= {(t.term.sequence, t.term.mean_over) for t in self.terms}
        return {
            (sequence, over): sum(batch.of(sequence).count(over) for batch in batches)
            for sequence, over in wanted
        }

    def __call__(self, scores: Scores, counts: Counts) -> Tensor:
        """Give one micro-batch's share of the step's loss: the shares add up to the mean.

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


class Risk(LikelihoodTerm):
    """The risk R itself as a term: ``−mean_i ℓ_i``, what finetuning minimises."""

    formula: ClassVar[str] = "−mean_i ℓ_i"
    risk_multiple: ClassVar[float | None] = 1.0

    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Give ``−ℓ_i``, ``(batch, tokens)``."""
        return -logps


def risk(scores: Scores, counts: Counts) -> Tensor:
    """Give one micro-batch's share of the risk R = −mean ℓ over the step's label tokens."""
    share: Tensor = -scores.logps.sum() / max(counts["answer", "tokens"], 1)
    return share
