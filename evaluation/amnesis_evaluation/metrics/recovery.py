"""Recovery: how much of a model's use is left after unlearning."""

from __future__ import annotations

import math


def recovery(before: float, after: float, chance: float = 0.0) -> float:
    """Give ``(after − c)/(before − c)``, plain at c = 0 and corrected for chance above.

    Not a number where the model was at chance before. Source: the SAGO paper, arXiv 2604.14808
    (MMLU recovery, plain); the correction is ours, because 25 % of a four-way test is no knowledge.
    """
    if before == chance:
        return math.nan
    return (after - chance) / (before - chance)
