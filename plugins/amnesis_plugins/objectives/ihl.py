"""Inverted hinge loss: make the runner-up token likelier than the true one, and then stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from amnesis.contracts import Needs, Scores, Term
from amnesis_plugins.distributions import log_distribution

if TYPE_CHECKING:
    from torch import Tensor


class IHL(Term):
    """IHL: ``mean_i [1 + p_i − max_{v≠y_i} p(v|i)]`` over label tokens, within [0, 2].

    Bounded, unlike gradient ascent, and it moves two tokens where ascent moves the whole
    vocabulary: the true token gives way to the likeliest other. Source: Cha et al. 2024,
    arXiv 2408.06621, the inverted hinge loss. No deviation.
    """

    formula: ClassVar[str] = "mean_i [1 + p_i − max_{v≠y_i} p(v|i)]"
    source: ClassVar[str] = "Cha et al. 2024, arXiv 2408.06621"
    by_place: ClassVar[bool] = True

    @property
    def needs(self) -> Needs:
        """Logits of the model."""
        return Needs(logits=True)

    def terms(self, scores: Scores) -> Tensor:
        """Return the loss of each label token, ``(batch, tokens)``."""
        # A row without a label holds -100, which is no index; its value is masked out in any case.
        true_tokens = scores.labels[scores.rows, None].clamp(min=0)
        p = log_distribution(scores.logits).exp()
        runner_up = p.scatter(-1, true_tokens, 0).max(-1).values
        return scores.unpack(1 + p.gather(-1, true_tokens).squeeze(-1) - runner_up)
