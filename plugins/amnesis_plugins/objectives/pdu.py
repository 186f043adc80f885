"""Primal-dual unlearning, the forget part: flatten the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from amnesis.contracts import Needs, Scores, Term

if TYPE_CHECKING:
    from torch import Tensor


class PDU(Term):
    """PDU: ``mean_i (max_v z_v − mean_v z_v)²`` at the places that predict label tokens.

    The margin of the likeliest logit over the mean; it is 0 exactly where all tokens are equally
    likely, and its gradient does not vanish on the way there. The method's other half is the retain
    loss as a constraint: ``{name: nll, weight: {name: dual}}``. Source: Entesari et al. 2025,
    arXiv 2506.05314, the logit-margin flattening loss. No deviation; a well-known implementation
    masks with labels that are not shifted, and so reads the logits one place to the right.
    """

    formula: ClassVar[str] = "mean_i (max_v z_v − mean_v z_v)²"
    source: ClassVar[str] = "Entesari et al. 2025, arXiv 2506.05314"
    by_place: ClassVar[bool] = True

    @property
    def needs(self) -> Needs:
        """Logits of the model."""
        return Needs(logits=True)

    def terms(self, scores: Scores) -> Tensor:
        """Return the squared margin at each label token, ``(batch, tokens)``."""
        logits = scores.logits.float() if scores.logits.element_size() < 4 else scores.logits
        return scores.unpack((logits.max(-1).values - logits.mean(-1)).square())
