"""Forgetting inside a cone around the retain gradient, in the metric of its second moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from amnesis.contracts import MetricCombiner

if TYPE_CHECKING:
    from torch import Tensor

    from amnesis.contracts import Coefficients


class CONE(MetricCombiner):
    """CONE (experimental): ``D(r + k·f)``, ``k = c·‖r‖_D/‖f‖_D``: f never outweighs r.

    ``D = 1/(√v̂ + λ·rms√v̂)`` is made of the second moment ``v̂`` of the retain gradient, an average
    over steps as Adam's is (β₂, with its correction for a short past), and its root mean square in
    each tensor. With ``‖x‖_D² = Σ D·x²`` over all parameters, for every f: ``⟨D(r+kf), r⟩ ≥ (1−c)
    ‖r‖_D²`` and ``cos_D(r+kf, r) ≥ √(1−c²)``, before momentum. Positive scalings of f or r change
    nothing, hence neither γ nor α does. The result is a step, not a gradient: its size is the
    learning rate's whatever is left to forget, so it wants an end (``until``), plain momentum
    (``training.optimizer: sgd``) and no clipping.

    A tensor that the retain stream never touched has no scale: it does not move. While ‖r‖ is below
    ``threshold``·‖f‖, as at θ° with ``kl``, there is no cone, and f goes alone, ``c·√n·f/‖f‖`` over
    all n elements: as long as the first step of c·Adam. Source: this project;
    no deviation.
    """

    formula: ClassVar[str] = "D(r + kf), k = c·‖r‖_D/‖f‖_D, D = 1/(√v̂ + λ·rms√v̂), v̂ = EMA(r²)"
    source: ClassVar[str] = "this project, experimental; docs/explanation/cone.md"

    c: float = Field(0.9, ge=0, lt=1, description="the sine of the cone's half-angle")
    damping: float = Field(0.1, gt=0, description="λ, in units of a tensor's rms√v̂")
    beta: float = Field(0.999, ge=0, lt=1, description="β₂, the second moment's memory")
    threshold: float = Field(1e-5, ge=0, description="‖r‖/‖f‖ below which r is but rounding")

    def moment(self, r: Tensor, last: Tensor | None, steps: int) -> Tensor:
        """Return v̂, the average of r² without bias: at step t r² weighs ``(1−β)/(1−βᵗ)``."""
        square = (r if r.element_size() >= 4 else r.float()).square()
        newest = (1 - self.beta) / (1 - self.beta**steps)
        return square if last is None else last.lerp_(square, newest)

    def divisor(self, moment: Tensor, mean: Tensor) -> Tensor:
        """Return ``√v̂ + λ·rms√v̂``, infinite where the retain stream has left no trace."""
        rms = mean.sqrt()
        return moment.sqrt().add_((self.damping * rms).masked_fill_(rms == 0, float("inf")))

    def free_coefficient(self, gram: Tensor, elements: int) -> float | None:
        """Return ``c·√n/‖f‖`` where ‖r‖ ≤ threshold·‖f‖, and f is not zero."""
        (forget_square, _), (_, retain_square) = gram.tolist()
        if not forget_square > 0 or retain_square > self.threshold**2 * forget_square:
            return None
        return float(self.c * (elements / forget_square) ** 0.5)

    def coefficients(self, gram: Tensor) -> Coefficients:
        """Return (k, 1), with k = 0 where f is zero."""
        forget_square, retain_square = gram.diagonal()
        k = self.c * (retain_square / forget_square).sqrt()
        return k.where(forget_square > 0, 0), 1.0
