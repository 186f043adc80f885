"""Bootstrap intervals over examples: how far a number would move with other examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy import float64, int64
    from numpy.typing import NDArray

    from amnesis.contracts import ExampleValues

Interval = tuple[float, float]
# Resampled indices held at a time, so that long sets take no more memory than short ones.
_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Bootstrap:
    """Percentile intervals from ``resamples`` draws of the examples with replacement.

    Source: Efron 1979. Examples are drawn, not tokens, for an answer's tokens depend on each
    other; examples of one author do too, so the intervals are too narrow where authors are few.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def of_mean(self, values: NDArray[float64]) -> Interval:
        """Return the interval of the mean of ``values``, ``(examples,)``."""
        means: list[NDArray[float64]] = []
        at_once = max(1, _AT_ONCE // max(values.size, 1))
        generator = np.random.default_rng(self.seed)
        for start in range(0, self.resamples, at_once):
            count = min(at_once, self.resamples - start)
            drawn = generator.integers(0, values.size, (count, values.size))
            means.append(values[drawn].mean(1))
        return self._interval(np.concatenate(means))

    def of(self, statistic: Callable[[NDArray[int64]], float], size: int) -> Interval:
        """Return the interval of a statistic of drawn indices, ``(size,)``."""
        generator = np.random.default_rng(self.seed)
        draws = (generator.integers(0, size, size) for _ in range(self.resamples))
        return self._interval(np.array([statistic(drawn) for drawn in draws]))

    def of_derived(
        self,
        statistic: Callable[[ExampleValues, ExampleValues | None], float],
        own: ExampleValues,
        retrained: ExampleValues | None,
    ) -> Interval:
        """Return the interval of a statistic of several sets, each of which is drawn anew.

        Metrics of one set are drawn together where they speak of the same number of examples, and
        so are those of the retrained model, which speak of the same examples.
        """
        found = [
            statistic(_redrawn(own, draw), None if retrained is None else _redrawn(retrained, draw))
            for draw in self._draws(own, retrained or {})
        ]
        return self._interval(np.array(found))

    def _draws(
        self, own: ExampleValues, retrained: ExampleValues
    ) -> Iterator[Mapping[tuple[str, int], NDArray[int64]]]:
        generator = np.random.default_rng(self.seed)
        sizes = sorted({(key[0], v.size) for vs in (own, retrained) for key, v in vs.items()})
        for _ in range(self.resamples):
            yield {(name, n): generator.integers(0, n, n) for name, n in sizes}

    def _interval(self, statistics: NDArray[float64]) -> Interval:
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(statistics, [tail, 1 - tail])
        return float(low), float(high)


def _redrawn(
    values: ExampleValues, draw: Mapping[tuple[str, int], NDArray[int64]]
) -> ExampleValues:
    return {key: v[draw[key[0], v.size]] for key, v in values.items()}
