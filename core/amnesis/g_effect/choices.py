"""The objectives that a probe is asked about, resolved and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amnesis.contracts import TermBase
from amnesis.errors import RecipeError
from amnesis.loss import StreamLoss, WeightedTerm
from amnesis.resolve import Choice, stream_of

if TYPE_CHECKING:
    from amnesis.registry import Registry


@dataclass(frozen=True)
class NamedLoss:
    """A loss, the name it is shown by, and the stream (its ``name``) whose data it is a loss of."""

    name: str
    loss: StreamLoss

    @property
    def likelihood(self) -> bool:
        """Whether it is a function of the label tokens' log-probabilities alone."""
        return self.loss.needs.likelihood_only


def named_losses(choices: Sequence[Choice], registry: Registry | None = None) -> list[NamedLoss]:
    """Resolve objectives; a regularizer's data is the retain set, any other's the forget set.

    Raises:
        RecipeError: nothing is asked for, one thing is asked for twice, or a term does not fit.
        PluginError: a name does not resolve.
    """
    if isinstance(choices, str) or not choices:
        raise RecipeError("objectives: give a list of at least one objective")
    losses: list[NamedLoss] = []
    for choice in choices:
        terms = stream_of("forget", "objective", choice, registry).terms
        kinds = {_is_regularizer(t.term) for t in terms}
        if len(kinds) > 1:
            raise RecipeError(
                "objectives: an objective and a regularizer are losses of different sets; "
                "name them apart"
            )
        stream = "retain" if kinds == {True} else "forget"
        name = " + ".join(map(_shown, terms))
        if name in {n.name for n in losses}:
            raise RecipeError(f"objectives: {name!r} is named twice")
        losses.append(NamedLoss(name, StreamLoss(stream, terms)))
    return losses


def _is_regularizer(term: TermBase) -> bool:
    return term._entry is not None and term._entry.kind == "regularizer"


def _shown(weighted: WeightedTerm) -> str:
    term = weighted.term
    given = ", ".join(f"{k}={getattr(term, k)}" for k in sorted(term.model_fields_set))
    weight = "" if weighted.weight == 1 else f"{weighted.weight:g}·"
    return f"{weight}{term.registered_name}" + (f"({given})" if given else "")
