"""Unilogit: distillation from the model itself, with the true token as likely as by chance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from amnesis.contracts import Needs, Scores, Term
from amnesis_plugins.distributions import expected, log_distribution

if TYPE_CHECKING:
    from torch import Tensor


class Unilogit(Term):
    """Unilogit: ``mean_i KL(p(·|i) ‖ sg(q(·|i)))``, q with ``q(y_i) = 1/V``, over label tokens.

    q are the model's present logits, with that of the true token replaced by
    ``log Σ_{v≠y} exp z_v − log(V − 1)``, which gives it probability 1/V and leaves the others'
    proportions as they are. So there is neither a strength to choose nor a reference; the gradient
    is ``p_i·log[p_i·(V − 1)/(1 − p_i)]·∇ℓ_i``: ascent until the token is no likelier than chance,
    and descent below. Source: Vasilev et al. 2025, arXiv 2505.06027. No deviation.
    """

    formula: ClassVar[str] = "mean_i KL(p(·|i) ‖ sg(p(·|i) with the true token at 1/V))"
    source: ClassVar[str] = "Vasilev et al. 2025, arXiv 2505.06027"
    by_place: ClassVar[bool] = True

    @property
    def needs(self) -> Needs:
        """Logits of the model."""
        return Needs(logits=True)

    def terms(self, scores: Scores) -> Tensor:
        """Return the divergence at each label token in nats, ``(batch, tokens)``."""
        # A row without a label holds -100, which is no index; its value is masked out in any case.
        true_tokens = scores.labels[scores.rows, None].clamp(min=0)
        logps = log_distribution(scores.logits)
        now = logps.detach()
        others = now.scatter(-1, true_tokens, float("-inf")).logsumexp(-1, keepdim=True)
        target = now.scatter(-1, true_tokens, others - math.log(now.shape[-1] - 1))
        return scores.unpack(expected(logps.exp(), logps - log_distribution(target)))
