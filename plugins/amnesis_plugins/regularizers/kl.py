"""Kullback-Leibler divergence from the model before unlearning."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from amnesis.contracts import MeanOver, Needs, Scores, Term
from amnesis_plugins.distributions import log_distribution

if TYPE_CHECKING:
    from torch import Tensor


class KL(Term):
    """KL: ``mean_i KL(p°(·|i) ‖ p(·|i))`` over label positions.

    ``top_k`` compares the reference's k likeliest entries and one bucket for all others: a lower
    bound, ≥ 0 and 0 at θ°, of which 12·k bytes are kept at each place. Otherwise what the
    reference's head reads is kept, and neither model's logits beyond some places at a time.

    At θ° the divergence and its gradient are exactly 0, so nothing protects retention on the first
    step.
    Source: Maini et al. 2024 (TOFU), arXiv 2401.06121. Deviation: in their code, and in those that
    took it over (the G-effect's among them), the mean runs over every place of the padded batch:
    the prompt, the last token and all padding, of which what is said means nothing, so the loss
    depends on how long the longest example is. ``positions: all`` is prompt and answer, never
    padding.
    """

    formula: ClassVar[str] = "mean_i KL(p°(·|i) ‖ p(·|i))"
    source: ClassVar[str] = "Maini et al. 2024, arXiv 2401.06121"
    by_place: ClassVar[bool] = True

    positions: Literal["labels", "all"] = Field("labels", description="label tokens, or all tokens")
    top_k: int | None = Field(
        None, ge=1, description="entries of the reference that are kept beside the tail; None: all"
    )

    @property
    def mean_over(self) -> MeanOver:
        """``tokens`` for label tokens, ``positions`` for all of prompt and answer."""
        return "tokens" if self.positions == "labels" else "positions"

    @property
    def needs(self) -> Needs:
        """Logits of the model, and the reference's logits or ``top_k`` likeliest entries."""
        return Needs(
            logits=True,
            ref_logits=self.top_k is None,
            ref_top=self.top_k or 0,
            all_positions=self.positions == "all",
        )

    def terms(self, scores: Scores) -> Tensor:
        """Return the divergence at each place in nats, ``(batch, tokens)``."""
        from amnesis_plugins.divergence import divergence

        if self.top_k is None:
            return scores.unpack(divergence(scores.logits, log_distribution(scores.ref_logits)))
        top_logps, indices = (entries[:, : self.top_k] for entries in scores.ref_top)
        return scores.unpack(divergence(scores.logits, top_logps, indices))
