"""Bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest

from amnesis_evaluation.evaluator import bootstrap
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


def test_pieces_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(30)
    whole = Bootstrap(500).of_mean(values)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 30 * 7)
    assert Bootstrap(500).of_mean(values) == whole
    assert Bootstrap(500).of(lambda drawn: float(values[drawn].mean()), 30) == whole


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
