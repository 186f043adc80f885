"""ROUGE-L recall: how much of the answer the model writes by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

from amnesis.contracts import Answer, ExampleMetric
from amnesis.contracts.metric import Reading

_WORD = re.compile("[a-z0-9]")  # rouge_score's own tokens are made of these


class RougeL(ExampleMetric):
    """Longest common subsequence of words with the greedy continuation, over the answer's words.

    Recall with the stemmer on, by the ``rouge_score`` package. Source: TOFU, arXiv 2401.06121,
    section 2.2.1. Deviation: TOFU's 200 tokens count the prompt, ours are new tokens.
    """

    formula: ClassVar[str] = "LCS(answer, greedy continuation) / |answer|, in stemmed words"
    source: ClassVar[str] = "TOFU, Maini et al. 2024, arXiv 2401.06121; Lin 2004"
    reads: ClassVar[Reading] = "generation"

    def value(self, answer: Answer) -> float:
        """Return the recall, in [0, 1]."""
        return rouge_l_recall(answer.text, answer.generated or "")

    def remark(self, answers: Sequence[Answer]) -> str | None:
        """Say how many answers it cannot see."""
        return without_words([answer.text for answer in answers])


class RougeLF1(ExampleMetric):
    """ROUGE-L as MUSE takes it: the F1 of the longest common subsequence, words not stemmed.

    Source: MUSE, arXiv 2407.06460, verbatim and knowledge memory. No deviation.
    """

    formula: ClassVar[str] = "F1 of LCS(answer, greedy continuation), in words"
    source: ClassVar[str] = "MUSE, Shi et al. 2024, arXiv 2407.06460; Lin 2004"
    reads: ClassVar[Reading] = "generation"

    @property
    def key(self) -> str:
        """Its name."""
        return "rouge_l_f1"

    def value(self, answer: Answer) -> float:
        """Return the F1, in [0, 1]."""
        found = _scorer(stemmed=False).score(answer.text, answer.generated or "")
        return float(found["rougeL"].fmeasure)

    def remark(self, answers: Sequence[Answer]) -> str | None:
        """Say how many answers it cannot see."""
        return without_words([answer.text for answer in answers])


def rouge_l_recall(reference: str, written: str) -> float:
    """Return the ROUGE-L recall of ``reference`` in ``written``, in [0, 1]."""
    return float(_scorer(stemmed=True).score(reference, written)["rougeL"].recall)


def without_words(references: Sequence[str]) -> str | None:
    """Say how many references have no word to ``rouge_score``, and so a ROUGE-L of 0."""
    count = sum(not _WORD.search(text.lower()) for text in references)
    if not count:
        return None
    return (
        f"{count} of {len(references)} answers have no word of Latin letters or digits, which are "
        f"all that rouge_score reads; their ROUGE-L is 0, whatever is written"
    )


@cache
def _scorer(*, stemmed: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=stemmed)
