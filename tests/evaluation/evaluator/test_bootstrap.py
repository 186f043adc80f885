"""Bootstrap intervals."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from amnesis_evaluation.evaluator.bootstrap import Bootstrap


def test_the_interval_of_a_mean_is_about_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = Bootstrap(4000).of_mean(values)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        low, high = Bootstrap(300, 0.9, seed).of_mean(generator.exponential(1, 60))
        covered += low <= 1 <= high
    assert 160 <= covered <= 195


@pytest.mark.parametrize(("resamples", "size"), [(500, 30), (900, 7001)])
def test_a_mean_is_the_statistic_of_one_draw_after_another(resamples: int, size: int) -> None:
    """Also where the draws are so many that they are made in pieces."""
    values = np.random.default_rng(0).random(size)
    found = Bootstrap(resamples).of_mean(values)
    assert found == Bootstrap(resamples).of(lambda drawn: float(values[drawn].mean()), size)


def test_a_long_set_takes_no_more_memory_than_a_short_one() -> None:
    """All draws at once would be 240 MB of indices, and as much of values."""
    values = np.random.default_rng(0).random(20_000)
    tracemalloc.start()
    Bootstrap(1500).of_mean(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6


def test_a_derived_metrics_sets_are_drawn_apart_and_its_parts_together() -> None:
    own = {("a", "x"): np.arange(20.0), ("a", "y"): np.arange(20.0), ("b", "x"): np.arange(20.0)}
    retrained = {("a", "x"): np.arange(20.0)}
    seen: list[bool] = []

    def statistic(ours: object, theirs: object) -> float:
        assert isinstance(ours, dict)
        assert isinstance(theirs, dict)
        assert (ours["a", "x"] == ours["a", "y"]).all()
        assert (ours["a", "x"] == theirs["a", "x"]).all()
        seen.append(bool((ours["a", "x"] == ours["b", "x"]).all()))
        return float(ours["a", "x"].mean())

    low, high = Bootstrap(50).of_derived(statistic, own, retrained)
    assert low < 9.5 < high
    assert not any(seen)
