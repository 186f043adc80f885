"""Recovery: how much of a model's use is left after unlearning."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from amnesis.contracts import ChangeMetric


class Recovery(ChangeMetric):
    """``(after − c)/(before − c)`` of a utility metric, plain at c = 0, corrected for chance above.

    Source: the SAGO paper, arXiv 2604.14808 (MMLU recovery, plain). The correction is ours: 25 %
    of a test with four choices is no knowledge.
    """

    formula: ClassVar[str] = "(after − c)/(before − c)"
    source: ClassVar[str] = "arXiv 2604.14808"

    chance: float = Field(0.0, ge=0, lt=1, description="c, what guessing gives")

    @property
    def key(self) -> str:
        """Its name, with the chance level where there is one."""
        return super().key + (f"_above_{self.chance:g}" if self.chance else "")

    def value(self, before: float, after: float) -> float:
        """Return the recovery; not a number where the model was at chance before."""
        if before == self.chance:
            return math.nan
        return (after - self.chance) / (before - self.chance)
