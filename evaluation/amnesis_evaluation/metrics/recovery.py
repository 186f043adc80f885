"""Recovery: how much of a model's utility is left after unlearning."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from amnesis.contracts import ChangeMetric


class Recovery(ChangeMetric):
    """``(after − c)/(before − c)`` of a utility metric, c being the level of chance.

    Source: the SAGO paper, arXiv 2604.14808 (MMLU recovery, with c = 0). Deviation: the correction
    for chance is ours, as 25 % on a test with four choices is no knowledge.
    """

    formula: ClassVar[str] = "(after − c)/(before − c)"
    source: ClassVar[str] = "arXiv 2604.14808"

    chance: float = Field(0.0, ge=0, lt=1, description="c, the value that guessing achieves")

    @property
    def key(self) -> str:
        """Its name, with the chance level where there is one."""
        return super().key + (f"_above_{self.chance:g}" if self.chance else "")

    def value(self, before: float, after: float) -> float:
        """Return the recovery; NaN where the model was at chance before."""
        if before == self.chance:
            return math.nan
        return (after - self.chance) / (before - self.chance)
