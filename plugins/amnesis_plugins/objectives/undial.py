"""Unlearning by self-distillation on adjusted logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from amnesis.contracts import Needs, Scores, Term
from amnesis_plugins.distributions import expected, log_distribution

if TYPE_CHECKING:
    from torch import Tensor


class UNDIAL(Term):
    """UNDIAL: ``mean_i CE(softmax(z°_i − β·onehot(y_i)), softmax(z_i))`` over label tokens.

    The target is the reference's own distribution with the true token's logit lowered by β. It is
    fixed, so the loss is bounded below. Source: Dong et al. 2024, arXiv 2402.10052. No
    deviation; a well-known implementation also distils at places without a label.
    """

    formula: ClassVar[str] = "mean_i CE(softmax(z°_i − β·onehot(y_i)), softmax(z_i))"
    source: ClassVar[str] = "Dong et al. 2024, arXiv 2402.10052"
    by_place: ClassVar[bool] = True

    beta: float = Field(10.0, ge=0, description="β, by how much the true token's logit is lowered")

    @property
    def needs(self) -> Needs:
        """Logits of the model and of the reference."""
        return Needs(logits=True, ref_logits=True)

    def terms(self, scores: Scores) -> Tensor:
        """Return each token's cross-entropy, ``(batch, tokens)``."""
        # A row without a label holds -100, which is no index; its value is masked out in any case.
        true_tokens = scores.labels[scores.rows, None].clamp(min=0)
        true_logits = scores.ref_logits.gather(-1, true_tokens) - self.beta
        target_logits = scores.ref_logits.scatter(-1, true_tokens, true_logits)
        target = log_distribution(target_logits).exp()
        return scores.unpack(-expected(target, log_distribution(scores.logits)))
