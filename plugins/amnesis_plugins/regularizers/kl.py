"""Kullback-Leibler divergence from the model before unlearning."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from amnesis.contracts import Term
from amnesis.scores import MeanOver, Needs, Scores
from amnesis_plugins.distributions import expected, log_distribution

if TYPE_CHECKING:
    from torch import Tensor


class KL(Term):
    """KL: ``mean_i KL(p°(·|i) ‖ p(·|i))`` over label positions.

    At θ° it and its gradient are 0: the first step has nothing that protects retention.
    Source: Maini et al. 2024 (TOFU), arXiv 2401.06121. Deviation: their average runs over the
    prompt too, and over padding; ``positions: all`` is prompt and answer, never padding.
    """

    formula: ClassVar[str] = "mean_i KL(p°(·|i) ‖ p(·|i))"
    source: ClassVar[str] = "Maini et al. 2024, arXiv 2401.06121"

    positions: Literal["labels", "all"] = Field("labels", description="label tokens, or all tokens")

    @property
    def mean_over(self) -> MeanOver:
        """Label tokens, or every position of prompt and answer."""
        return "tokens" if self.positions == "labels" else "positions"

    @property
    def needs(self) -> Needs:
        """Logits of the model and of the reference."""
        return Needs(logits=True, ref_logits=True, all_positions=self.positions == "all")

    def terms(self, scores: Scores) -> Tensor:
        """Give the divergence at each place, ``(batch, tokens)``."""
        own = log_distribution(scores.logits)
        reference = log_distribution(scores.ref_logits)
        return scores.unpack(expected(reference.exp(), reference - own))
