"""Preference optimization in this field's sense: learn to refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from amnesis.contracts import LikelihoodTerm
from amnesis_plugins.objectives.refusals import REFUSALS, refusal_of

if TYPE_CHECKING:
    from torch import Tensor


class PO(LikelihoodTerm):
    """PO: ``−mean_i ℓ_i`` over the label tokens of a refusal in the answer's place.

    Also called IDK. It is not DPO: nothing is dispreferred, and the answer itself is never seen.
    Source: Maini et al. 2024 (TOFU), arXiv 2401.06121. Deviation: the refusal of an example is
    chosen by a hash of seed and example instead of being drawn anew each time, and the shipped
    refusals are our own.
    """

    formula: ClassVar[str] = "−mean_i ℓ_i of a refusal"
    source: ClassVar[str] = "Maini et al. 2024, arXiv 2401.06121"
    sequence: ClassVar[str] = "refusal"

    refusals: tuple[str, ...] = Field(REFUSALS, min_length=1, description="texts to refuse with")
    seed: int = Field(0, description="of the choice of each example's refusal")

    def texts(self) -> Mapping[str, Callable[[Mapping[str, Any]], str]]:
        """Return ``{"refusal": function}``; the function chooses the refusal of a row."""
        return {"refusal": partial(refusal_of, refusals=self.refusals, seed=self.seed)}

    def terms(self, logps: Tensor, mask: Tensor, ref_logps: Tensor | None = None) -> Tensor:
        """Return ``−ℓ_i`` of the refusal's tokens, ``(batch, tokens)``."""
        return -logps
