"""Maximum entropy: on the forget set every token becomes equally likely."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from amnesis.contracts import Needs, Scores, Term
from amnesis_plugins.distributions import expected, log_distribution

if TYPE_CHECKING:
    from torch import Tensor


class ME(Term):
    """ME: ``mean_i KL(p(·|i) ‖ u) = mean_i [log V − H(p(·|i))]`` over label tokens, u uniform.

    Nothing is learned in the answer's place and nothing is pushed below chance: the loss lies
    within [0, log V], and at its end the model guesses. The true token plays no part. Source: Yuan
    et al. 2024, arXiv 2410.08109, the objective of ME+GD. Deviation: none from the paper; its
    authors' code exchanges the two, ``−log V − mean_v log p_v``, which is ``order: code`` (there
    with 1e-12 added to p; here it is unbounded).
    """

    formula: ClassVar[str] = "mean_i KL(p(·|i) ‖ u), u uniform over the vocabulary"
    source: ClassVar[str] = "Yuan et al. 2024, arXiv 2410.08109"
    by_place: ClassVar[bool] = True

    order: Literal["paper", "code"] = Field(
        "paper", description="KL(p ‖ u) as the paper has it, or KL(u ‖ p) as its code"
    )

    @property
    def needs(self) -> Needs:
        """Logits of the model."""
        return Needs(logits=True)

    def terms(self, scores: Scores) -> Tensor:
        """Return the divergence at each label token in nats, ``(batch, tokens)``."""
        logps = log_distribution(scores.logits)
        log_v = math.log(logps.shape[-1])
        if self.order == "code":
            return scores.unpack(-logps.mean(-1) - log_v)
        return scores.unpack(log_v + expected(logps.exp(), logps))
