"""The loss of a stream: weighted terms, reduced once per optimizer step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

from amnesis.contracts.term import NO_STATE, LikelihoodTerm, StatefulTerm, Term, TermBase
from amnesis.contracts.weight import State, Weight
from amnesis.data.batches import MeanOver
from amnesis.errors import DataError, NonFiniteError, RecipeError
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
    """A term and its weight in a stream's loss, with the states of both at a step.

    Attributes:
        term: the term.
        weight: its weight at this step.
        schedule: what the weight follows, if it depends on the step alone.
        rule: what the weight follows, if it depends on what the run has measured.
        state: the term's state, if it has one.
        rule_state: the rule's state.
    """

    term: TermBase
    weight: float = 1.0
    schedule: Schedule | None = None
    rule: Weight | None = None
    state: State = field(default_factory=dict)
    rule_state: State = field(default_factory=dict)

    @classmethod
    def by_rule(cls, term: TermBase, rule: Weight) -> WeightedTerm:
        """Return a term with a weight that follows a rule, as before the first step."""
        state = rule.initial_state()
        return cls(term, rule.weight(state), rule=rule, rule_state=state)

    @property
    def varies(self) -> bool:
        """Whether the weight changes along a run."""
        return self.schedule is not None or self.rule is not None

    def at(self, step: int) -> WeightedTerm:
        """Return the term with its weight at a step, counted from 0."""
        return self if self.schedule is None else replace(self, weight=self.schedule.at(step))

    def advanced(self, step: int, loss: float, measured: Mapping[str, float]) -> WeightedTerm:
        """Return the term for the next step, given its mean loss and what it measured at this."""
        changed = self
        if self.rule is not None:
            state = self.rule.advance(self.rule_state, step, loss)
            changed = replace(changed, rule_state=state, weight=self.rule.weight(state))
        if isinstance(self.term, StatefulTerm):
            changed = replace(changed, state=self.term.advance(self.state, step, measured))
        return changed

    def restored(self, states: Mapping[str, State]) -> WeightedTerm:
        """Return the term with the states that a checkpoint has kept."""
        rule_state = states["rule"]
        weight = self.weight if self.rule is None else self.rule.weight(rule_state)
        return replace(self, state=states["term"], rule_state=rule_state, weight=weight)


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
        return reduce(lambda a, b: a | b, (t.term.needs for t in self.terms), Needs())

    @property
    def row_terms(self) -> tuple[Term, ...]:
        """The terms that read logits, if all of them look at each place by itself; else none."""
        readers = [t.term for t in self.terms if t.term.needs.reads_logits]
        by_place = [term for term in readers if isinstance(term, Term) and term.is_by_place]
        return tuple(by_place) if len(by_place) == len(readers) else ()

    @property
    def risk_multiple(self) -> float | None:
        """c if this loss is c times the risk R = −mean ℓ of the same batch, else None."""
        if len(self.terms) != 1 or self.terms[0].term.risk_multiple is None:
            return None
        return self.terms[0].weight * self.terms[0].term.risk_multiple

    @property
    def has_state(self) -> bool:
        """Whether a term or a weight changes by what the run measures."""
        return any(t.rule is not None or isinstance(t.term, StatefulTerm) for t in self.terms)

    def at(self, step: int) -> StreamLoss:
        """Return the loss with its weights at a step, counted from 0."""
        return replace(self, terms=tuple(t.at(step) for t in self.terms))

    def times(self, factor: float) -> StreamLoss:
        """Return ``factor`` times the loss."""
        return replace(self, terms=tuple(replace(t, weight=factor * t.weight) for t in self.terms))

    def logged_weights(self) -> dict[str, float]:
        """Return the weights that change along a run, by the names that they are logged under."""
        return {
            f"{self.name}/weight/{t.term.registered_name}": t.weight for t in self.terms if t.varies
        }

    def logged_terms(self, means: Sequence[float]) -> dict[str, float]:
        """Return the means of terms whose weight follows them, by the names they are logged under.

        The stream's loss has them times their weight, which may be 0.
        """
        return {
            f"{self.name}/loss/{t.term.registered_name}": mean
            for t, mean in zip(self.terms, means, strict=True)
            if t.rule is not None
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

    def shares(self, scores: Scores, counts: Counts) -> list[Tensor]:
        """Return a micro-batch's share of each term's mean, without its weight.

        ``counts`` are those of all micro-batches and ranks of the step, so the shares of a step add
        up to the means.
        """
        return [
            t.term.summed(scores, t.state) / max(counts[t.term.sequence, t.term.mean_over], 1)
            for t in self.terms
        ]

    def total(self, shares: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum of the terms' shares, which is differentiated."""
        weighted = [t.weight * share for t, share in zip(self.terms, shares, strict=True)]
        return reduce(lambda a, b: a + b, weighted)

    def __call__(self, scores: Scores, counts: Counts) -> Tensor:
        """Return a micro-batch's share of the step's loss; the shares of a step add up to it.

        Raises:
            NonFiniteError: a term's value is infinite or NaN.
        """
        shares = self.shares(scores, counts)
        self.check_finite([float(share.detach()) for share in shares])
        return self.total(shares)

    def check_finite(self, means: Sequence[float]) -> None:
        """Refuse terms whose value is infinite or NaN.

        Raises:
            NonFiniteError: naming the first of them.
        """
        for weighted, mean in zip(self.terms, means, strict=True):
            if not math.isfinite(mean):
                raise NonFiniteError(
                    f"the {self.name} stream's loss is {mean}: term {weighted.term.label}"
                )

    def measured(self, scores: Scores) -> list[dict[str, Tensor]]:
        """Return what each term with a state measures of a micro-batch; sums by name."""
        sums: list[dict[str, Tensor]] = []
        for term in (t.term for t in self.terms):
            sums.append({})
            if isinstance(term, StatefulTerm):
                values = term.measured(scores.restricted_to(term.needs, term.label))
                sums[-1] = {name: value.detach() for name, value in values.items()}
        return sums

    def advanced(
        self, step: int, means: Sequence[float], measured: Sequence[Mapping[str, float]]
    ) -> StreamLoss:
        """Return the loss for the next step, given each term's mean and what it measured."""
        terms = zip(self.terms, means, measured, strict=True)
        return replace(self, terms=tuple(t.advanced(step, mean, sums) for t, mean, sums in terms))

    def measured_first(self, measured: Sequence[Mapping[str, float]]) -> StreamLoss:
        """Return the loss with the first states of its terms, given what they measured at θ°."""
        terms = [
            replace(t, state=t.term.advance(NO_STATE, -1, sums))
            if isinstance(t.term, StatefulTerm)
            else t
            for t, sums in zip(self.terms, measured, strict=True)
        ]
        return replace(self, terms=tuple(terms))

    def states(self) -> list[dict[str, dict[str, float]]]:
        """Return the states of its terms and weights, for a checkpoint."""
        return [{"term": dict(t.state), "rule": dict(t.rule_state)} for t in self.terms]

    def restored(self, states: Sequence[Mapping[str, State]]) -> StreamLoss:
        """Return the loss with the states that :meth:`states` returned."""
        terms = zip(self.terms, states, strict=True)
        return replace(self, terms=tuple(t.restored(one) for t, one in terms))


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


def check_columns(loss: StreamLoss, rows: Sequence[Row]) -> None:
    """Refuse rows without a column that one of the loss's terms reads.

    Raises:
        DataError: naming the term, the column and the first row without it.
    """
    for term in (weighted.term for weighted in loss.terms):
        for column in sorted(term.columns):
            lacking = [index for index, row in enumerate(rows) if row.get(column) is None]
            if lacking:
                raise DataError(
                    f"{loss.name} stream, row {lacking[0]}: has no {column!r}, which {term.label} "
                    f"reads; {len(lacking)} of {len(rows)} rows lack it"
                )


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
