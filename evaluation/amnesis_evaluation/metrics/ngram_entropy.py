"""N-gram entropy: low where a broken model repeats itself."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import numpy as np

from amnesis.contracts import Answer, ExampleMetric, Reading

_WEIGHTS = {2: 2 / 3, 3: 4 / 3}


class NgramEntropy(ExampleMetric):
    """Mean of ``2/3·H₂`` and ``4/3·H₃``, the entropies (bits) of the generated text's n-grams.

    Words are split at white space. Source: fluency in Zhang et al. 2018 and ROME, Meng et al.
    2022, arXiv 2202.05262, as RWKU uses it. Deviation: words, where ROME takes NLTK's tokens.
    """

    formula: ClassVar[str] = "½·(2/3·H₂ + 4/3·H₃), H_n = −Σ f log₂ f over n-grams"
    source: ClassVar[str] = "Zhang et al. 2018; Meng et al. 2022, arXiv 2202.05262"
    reads: ClassVar[Reading] = "generation"

    def value(self, answer: Answer) -> float:
        """Return the weighted entropy in bits; 0 for a text of fewer than two words."""
        words = (answer.generated or "").split()
        return float(np.mean([weight * _entropy(words, n) for n, weight in _WEIGHTS.items()]))


def _entropy(words: list[str], n: int) -> float:
    counts = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    frequency = np.array(list(counts.values()), dtype=np.float64)
    if not frequency.size:
        return 0.0
    frequency /= frequency.sum()
    return float(-(frequency * np.log2(frequency)).sum())
