"""Kullback-Leibler divergence from the model before unlearning."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from amnesis.contracts import MeanOver, Needs, Scores, Term
from amnesis_plugins.distributions import expected, log_distribution, with_tail

if TYPE_CHECKING:
    from torch import Tensor


class KL(Term):
    """KL: ``mean_i KL(p°(·|i) ‖ p(·|i))`` over label positions.

    ``top_k`` keeps the reference's k likeliest entries and one bucket for all others: a lower
    bound that is ≥ 0 and 0 at θ°, for vocabularies whose distributions are too large to keep.

    At θ° it and its gradient are 0: the first step has nothing that protects retention.
    Source: Maini et al. 2024 (TOFU), arXiv 2401.06121. Deviation: their average runs over the
    prompt too, and over padding; ``positions: all`` is prompt and answer, never padding.
    """

    formula: ClassVar[str] = "mean_i KL(p°(·|i) ‖ p(·|i))"
    source: ClassVar[str] = "Maini et al. 2024, arXiv 2401.06121"

    positions: Literal["labels", "all"] = Field("labels", description="label tokens, or all tokens")
    top_k: int | None = Field(
        None, ge=1, description="entries of the reference that are kept beside the tail; None: all"
    )

    @property
    def mean_over(self) -> MeanOver:
        """Label tokens, or every position of prompt and answer."""
        return "tokens" if self.positions == "labels" else "positions"

    @property
    def needs(self) -> Needs:
        """Logits of the model and of the reference."""
        return Needs(
            logits=True,
            ref_logits=self.top_k is None,
            ref_top=self.top_k or 0,
            all_positions=self.positions == "all",
        )

    def terms(self, scores: Scores) -> Tensor:
        """Return the divergence at each place, ``(batch, tokens)``."""
        own = log_distribution(scores.logits)
        if self.top_k is not None:
            logps, indices = (kept[:, : self.top_k] for kept in scores.ref_top)
            own, reference = with_tail(own.gather(-1, indices)), with_tail(logps)
            return scores.unpack(expected(reference.exp(), reference - own))
        reference = log_distribution(scores.ref_logits)
        return scores.unpack(expected(reference.exp(), reference - own))
