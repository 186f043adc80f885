"""Jensen-Shannon unlearning, the retain part: a bounded divergence from the model before."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from amnesis.contracts import Needs, Scores, Term
from amnesis_plugins.distributions import expected, log_distribution

if TYPE_CHECKING:
    from torch import Tensor


class JensUn(Term):
    """JensUn: ``mean_i JSD(p(·|i), p°(·|i))`` over label positions, within [0, log 2].

    Symmetric and bounded, where KL is neither: a token that has become impossible costs no more
    than log 2. At θ° the divergence and its gradient are exactly 0, so nothing protects retention
    on the first step. The objective of the same name is the forget part. Source: Singh et al. 2025,
    arXiv 2509.02820. No deviation.
    """

    formula: ClassVar[str] = "mean_i JSD(p(·|i), p°(·|i))"
    source: ClassVar[str] = "Singh et al. 2025, arXiv 2509.02820"
    by_place: ClassVar[bool] = True

    @property
    def needs(self) -> Needs:
        """Logits of the model and of the reference."""
        return Needs(logits=True, ref_logits=True)

    def terms(self, scores: Scores) -> Tensor:
        """Return the divergence at each place in nats, ``(batch, tokens)``."""
        logps, ref_logps = log_distribution(scores.logits), log_distribution(scores.ref_logits)
        to_model, to_reference = log_shares(logps.detach(), ref_logps)
        # The middle's own slope adds up to 0, so that of p beside a fixed middle is all there is.
        value = expected(logps.exp(), to_model) + expected(ref_logps.exp(), to_reference)
        return scores.unpack(value / 2)


def log_shares(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``log(p/m)`` and ``log(q/m)`` of log-probabilities, ``m = (p + q)/2``; 0 if p = q."""
    neither = p.isneginf() & q.isneginf()
    ratio = q.masked_fill(neither, 0) - p.masked_fill(neither, 0)
    # log((1 + e^x)/2) = relu(x) + log(1 + (e^−|x| − 1)/2), which is exactly 0 at x = 0.
    shared = (ratio.abs().neg().expm1() / 2).log1p()
    return -(shared + ratio.relu()), -(shared + ratio.neg().relu())
