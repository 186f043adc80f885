"""Cross-entropy unlearning: the model's own prediction, without the true token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from amnesis.contracts import MeanOver, Needs, Scores, Term
from amnesis_plugins.distributions import expected, log_distribution

if TYPE_CHECKING:
    from torch import Tensor


class CEU(Term):
    """CE-U: ``mean_i CE(softmax(sg(z_i) with z_{i,y_i} = −∞), softmax(z_i))`` over label tokens.

    The target is the model's present distribution, with the true token's share given to the
    others. No reference is needed, and the gradient ``softmax(z) − target`` neither vanishes where
    the model is certain nor explodes where it has forgotten. Source: Yang 2025, arXiv 2503.01224.
    Deviation: the paper (in a footnote on its training settings) and its code leave out the first
    token of each answer, which ``skip_first`` does; by default all label tokens count.
    """

    formula: ClassVar[str] = "mean_i CE(softmax(sg(z_i), true token at −∞), softmax(z_i))"
    source: ClassVar[str] = "Yang 2025, arXiv 2503.01224"
    by_place: ClassVar[bool] = True

    skip_first: bool = Field(
        False, description="leave out each answer's first token, as the paper does"
    )

    @property
    def mean_over(self) -> MeanOver:
        """Label tokens, without each answer's first where that is skipped."""
        return "tokens_after_first" if self.skip_first else "tokens"

    @property
    def needs(self) -> Needs:
        """Logits of the model."""
        return Needs(logits=True)

    def terms(self, scores: Scores) -> Tensor:
        """Return each token's cross-entropy, ``(batch, tokens)``."""
        # A row without a label holds -100, which is no index; its value is masked out in any case.
        true_tokens = scores.labels[scores.rows, None].clamp(min=0)
        target_logits = scores.logits.detach().scatter(-1, true_tokens, float("-inf"))
        target = log_distribution(target_logits).exp()
        return scores.unpack(-expected(target, log_distribution(scores.logits)))
