"""The numbers that a verdict goes by; its rules stand in ``verdict.py``."""

from __future__ import annotations

# Measures of memory, and what they are at most on rows that a model has not seen.
UNSEEN = {
    "extraction_strength": 0.1,
    "exact_memorization": 0.5,
    "probability": 0.2,
    "rouge_l": 0.4,
    "rouge_l_f1": 0.4,
    "acc": 0.3,
}
QUALITY = (*UNSEEN, "choice_probability", "truth_ratio_utility", "ngram_entropy", "perplexity")
FORGOTTEN, ALMOST, UNMOVED, STILL_THERE = 0.9, 0.75, 0.1, 0.5
KEPT, BROKEN = 0.95, 0.5
FAR, GAP, TENTH = 0.2, 0.1, 0.1
NEXT_TO_NOTHING = 0.05


def is_forgotten_set(name: str) -> bool:
    """Return whether a set holds what must go."""
    return name == "forget" or name.startswith("forget_")
