"""Bootstrap intervals: how far a value would move with other examples."""

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
# Resampled indices that are held at a time, so that long sets need no more memory than short ones.
_MAX_INDICES = 2_000_000


@dataclass(frozen=True)
class Bootstrap:
    """Percentile intervals from ``resamples`` draws of the examples with replacement.

    Source: Efron 1979. Examples are drawn, not tokens, because an answer's tokens depend on each
    other. So do the examples of one author: the intervals are too narrow where authors are few.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def of_mean(self, values: NDArray[float64]) -> Interval:
        """Return the interval of the mean of ``values``, ``(examples,)``."""
        means: list[NDArray[float64]] = []
        at_once = max(1, _MAX_INDICES // max(values.size, 1))
        generator = np.random.default_rng(self.seed)
        for start in range(0, self.resamples, at_once):
            count = min(at_once, self.resamples - start)
            indices = generator.integers(0, values.size, (count, values.size))
            means.append(values[indices].mean(1))
        return self._interval(np.concatenate(means))

    def of(self, statistic: Callable[[NDArray[int64]], float], size: int) -> Interval:
        """Return the interval of a statistic of resampled indices, ``(size,)``."""
        generator = np.random.default_rng(self.seed)
        draws = (generator.integers(0, size, size) for _ in range(self.resamples))
        return self._interval(np.array([statistic(indices) for indices in draws]))

    def of_derived(
        self,
        statistic: Callable[[ExampleValues, ExampleValues | None], float],
        own: ExampleValues,
        retrained: ExampleValues | None,
    ) -> Interval:
        """Return the interval of a statistic of several sets, each of which is resampled.

        Values of one set are resampled by the same indices where they are equally many, those of
        the retrained model included: they belong to the same examples.
        """
        values = [
            statistic(
                _resample(own, draw), None if retrained is None else _resample(retrained, draw)
            )
            for draw in self._draws(own, retrained or {})
        ]
        return self._interval(np.array(values))

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


def _resample(
    values: ExampleValues, draw: Mapping[tuple[str, int], NDArray[int64]]
) -> ExampleValues:
    return {key: v[draw[key[0], v.size]] for key, v in values.items()}
