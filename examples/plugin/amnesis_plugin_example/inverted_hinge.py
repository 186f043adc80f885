"""Inverted hinge loss: make the runner-up token likelier than the true one, and then stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from amnesis.contracts import Needs, Scores, Term

if TYPE_CHECKING:
    from torch import Tensor


class InvertedHinge(Term):
    """IHL: ``mean_i [1 + p_i − max_{v≠y_i} p(v|x, y_<i)]`` over label tokens, within [0, 2].

    Bounded, unlike gradient ascent: where another token is far likelier, nothing is left to gain.
    Source: Cha et al. 2025, arXiv 2408.06621, inverted hinge loss. No deviation.
    """

    formula: ClassVar[str] = "mean_i [1 + p_i − max_{v≠y_i} p(v|x, y_<i)]"
    source: ClassVar[str] = "Cha et al. 2025, arXiv 2408.06621"

    @property
    def needs(self) -> Needs:
        """The likelihood of the true token, and all logits for that of the runner-up."""
        return Needs(logps=True, logits=True)

    def terms(self, scores: Scores) -> Tensor:
        """Return the loss of each label token, ``(batch, tokens)``."""
        own = scores.logps.exp()
        first, second = (scores.unpack(p) for p in scores.logits.softmax(-1).topk(2).values.T)
        # The true token is the likeliest exactly if it is nearer to the first than to the second.
        runner_up = second.where(2 * own > first + second, first)
        return 1 + own - runner_up
