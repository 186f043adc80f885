"""leak@k: what the best of k sampled answers reveals, estimated without bias."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Annotated, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from amnesis.contracts import Benchmark, Evaluation, EvaluationSettings, Subject
from amnesis.data.examples import Example
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import build_metrics
from amnesis.progress import ProgressCallback
from amnesis_evaluation.attacks.attacking import evaluated_sets, forms_of
from amnesis_evaluation.attacks.sampling import Sampling
from amnesis_evaluation.evaluator.evaluate import evaluate
from amnesis_evaluation.evaluator.selection import select
from amnesis_evaluation.evaluator.units import groups_of


class LeakAtK(Sampling):
    """The expected best score of k answers sampled at a temperature, beside greedy decoding.

    With n ≥ k samples of a row, of ROUGE-L recalls s_(1) ≤ … ≤ s_(n), the estimate is the mean of
    the maximum over all subsets of k, which is unbiased; it is averaged over rows, and its interval
    is over rows. With ``threshold`` a sample's score is whether its recall reaches it, and
    ``set/leak_at_k`` the probability that one of k does. ``set/rouge_l`` is of the greedy answers
    to the same rows. The intervals narrow with more rows; with more samples only as far as the
    samples of one row differ. It costs ``samples`` generations per row, and a greedy one.
    Source: Reisizadeh et al. 2025, arXiv 2511.04934. Deviation: the score is ROUGE-L recall.
    """

    formula: ClassVar[str] = "mean over rows of Σ_{j=k}^n C(j−1, k−1)/C(n, k)·s_(j)"
    source: ClassVar[str] = "Reisizadeh et al. 2025, arXiv 2511.04934"

    samples: int = Field(16, ge=1, description="n, answers per row")
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 4, 8), min_length=1, description="how many answers the attacker sees; one or several"
    )
    threshold: float | None = Field(
        None, gt=0, le=1, description="the recall that counts as a leak; None: the recall itself"
    )

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        if max(self.k) > self.samples:
            raise ValueError(
                f"k {max(self.k)} needs as many samples, but samples is {self.samples}; raise it"
            )
        return self

    def attack(
        self,
        subject: Subject,
        benchmark: Benchmark,
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
    ) -> Evaluation:
        """Sample answers, and write greedy ones; the model itself is not changed.

        Raises:
            DataError: ``sets`` names a set that the benchmark does not evaluate.
        """
        evaluation = super().attack(subject, benchmark, settings, progress)
        available, forms = evaluated_sets(benchmark), forms_of(benchmark, subject)
        metrics = build_metrics(("rouge_l",), default_registry())
        sets = {name: available[name][: settings.generate_rows] for name in self.sets}
        selection = select(sets, metrics, retrained=False)
        greedy = evaluate(subject, sets, selection, settings, progress, forms=forms)
        evaluation.values.update(greedy.values)
        evaluation.intervals.update(greedy.intervals)
        evaluation.examples.extend(greedy.examples)
        evaluation.notes.extend(note for note in greedy.notes if note not in evaluation.notes)
        return evaluation

    def metric_keys(self) -> tuple[str, ...]:
        """Return the keys of the estimates, and of the greedy answers."""
        return *(self._key(k) for k in dict.fromkeys(self.k)), "rouge_l"

    def cost(self, benchmark: Benchmark, settings: EvaluationSettings) -> str:
        """Return the number of generations, and how wide an interval may come out."""
        available = evaluated_sets(benchmark)
        z = NormalDist().inv_cdf((1 + settings.confidence) / 2)
        lines = []
        for name in self.sets:
            rows = available.get(name, ())[: settings.limit][: settings.generate_rows]
            groups = groups_of(rows)
            units = len(rows if groups is None else set(groups))
            # A mean of values in [0, 1] has at most this error, where half of them are 0, half 1.
            width = z * 0.5 / math.sqrt(units) if units else math.inf
            lines.append(
                f"{name}: {len(rows)} rows × ({self.samples} samples + 1 greedy) = "
                f"{len(rows) * (self.samples + 1)} generations of at most "
                f"{settings.max_new_tokens} tokens; intervals at {settings.confidence:g} over "
                f"{units} {'rows' if groups is None else 'groups'} of at most ±{width:.3f} "
                f"(±0.05 takes at most {math.ceil((z * 0.5 / 0.05) ** 2)})"
            )
        return "; ".join(lines)

    def _record(
        self,
        name: str,
        examples: Sequence[Example],
        recalls: NDArray[np.float64],
        settings: EvaluationSettings,
        evaluation: Evaluation,
    ) -> None:
        """Add the values of a set; ``recalls`` are ``(examples, samples)``."""
        scores = recalls if self.threshold is None else (recalls >= self.threshold).astype(float)
        values = {self._key(k): leak_at_k(scores, k) for k in dict.fromkeys(self.k)}
        self._add(name, examples, values, settings, evaluation)

    def _key(self, k: int) -> str:
        return f"leak_at_{k}" + ("" if self.threshold is None else f"_from_{self.threshold:g}")


def leak_at_k(scores: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return the unbiased estimate of each row's expected best of k scores, ``(rows,)``.

    ``scores`` are ``(rows, samples)``, at least k of them.
    """
    n = scores.shape[1]
    # Exact integers: a binomial coefficient of some hundred samples overflows a float.
    weights = [math.comb(j - 1, k - 1) / math.comb(n, k) for j in range(1, n + 1)]
    best: NDArray[np.float64] = np.sort(scores, axis=1) @ np.array(weights)
    return best
