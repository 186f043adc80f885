"""The rule of a learning rate, on curves whose path to forgetting is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amnesis.errors import RecipeError
from amnesis.training.pacing.choice import (
    FORGOTTEN,
    RangePoint,
    RangeTest,
    choose_rate,
    ending,
    rise_needed,
)

RATES = [1e-7 * 10 ** (k / 4) for k in range(25)]


def curve(
    forget: Callable[[float], float],
    retain: Callable[[float], float | None] = lambda path: None,
    rates: list[float] = RATES,
) -> list[RangePoint]:
    """Return the curve of risks that are functions of the path that the weights went."""
    points, path = [], 0.0
    for rate in [0.0, *rates]:
        path += rate
        points.append(
            RangePoint.model_construct(rate=rate, forget=forget(path), retain=retain(path))
        )
    return points


@given(
    st.floats(1e-5, 0.05),
    st.floats(0.5, 3.0),
    st.floats(0.0, 5.0),
    st.integers(1, 1000),
)
def test_the_run_goes_as_far_as_the_test_had_to(
    path: float, power: float, start: float, steps: int
) -> None:
    """Of a risk that is any power of the path, the path is known to within the crossing step."""
    needed = rise_needed(start)
    found = choose_rate(curve(lambda p: start + needed * (p / path) ** power), steps)
    assert found.ended == "forgotten"
    sums = [sum(RATES[:k]) for k in range(26)]
    crossed = next(k for k, total in enumerate(sums) if total >= path * (1 - 1e-9))
    assert sums[crossed - 1] * (1 - 1e-9) <= found.path <= sums[crossed] * (1 + 1e-9)
    assert found.rate == pytest.approx(found.path / steps, rel=0.05)  # two digits
    if power == 1:
        assert found.path == pytest.approx(path, rel=1e-6)


@given(st.floats(0.01, 100.0))
def test_it_scales_with_the_rates(scale: float) -> None:
    risk = curve(lambda p: (p / 1e-3) ** 1.5)
    scaled = curve(lambda p: (p / scale / 1e-3) ** 1.5, rates=[scale * rate for rate in RATES])
    one, other = choose_rate(risk, 10), choose_rate(scaled, 10)
    assert other.path == pytest.approx(scale * one.path, rel=1e-6)


def test_what_was_known_decides_how_far_it_has_to_go() -> None:
    assert rise_needed(0.0) == FORGOTTEN
    assert rise_needed(1.0) == pytest.approx(FORGOTTEN - 1.0)
    assert rise_needed(4.0) == 1.0  # not known: a nat, so that there is a rate at all


def test_nothing_after_its_end_has_a_part_in_it() -> None:
    whole = curve(lambda p: p / 1e-3)
    end = next(k for k in range(1, 26) if ending(whole[: k + 1]) is not None)
    assert ending(whole[: end + 1]) == "forgotten"
    assert choose_rate(whole[: end + 1], 10) == choose_rate(whole, 10)
    assert len(choose_rate(whole, 10).curve) == end + 1


def test_damage_ends_it_as_forgetting_does() -> None:
    found = choose_rate(curve(lambda p: 0.1 * p / 1e-3, lambda p: p / 1e-3), 10)
    assert found.ended == "damaged"
    assert found.path == pytest.approx(FORGOTTEN * 1e-3, rel=1e-6)


def test_what_diverges_stops_short_of_the_step_that_did() -> None:
    def risk(path: float) -> float:
        return math.nan if path > 1e-3 else path

    found = choose_rate(curve(risk), 1)
    assert found.ended == "diverged"
    assert found.path <= 1e-3
    assert all(math.isfinite(point.forget) for point in found.curve)
    assert RangeTest.model_validate(found.model_dump(mode="json")) == found
    with pytest.raises(RecipeError, match="the first step of its range test was no longer finite"):
        choose_rate(curve(lambda p: math.nan if p else 0.0), 1)


def test_a_bounded_objective_goes_half_of_its_way() -> None:
    found = choose_rate(curve(lambda p: 1.0 - math.exp(-p / 1e-3)), 1)
    assert found.ended == "saturated"
    assert found.path == pytest.approx(math.log(2) * 1e-3, rel=0.1)
    assert len(found.curve) == 26


def test_an_objective_that_moves_nothing_is_refused() -> None:
    with pytest.raises(RecipeError) as raised:
        choose_rate(curve(lambda p: 0.05 * (1.0 - math.exp(-p))), 10)
    assert "auto found none: up to 0.1 the risk on the forget set rose by no more than 0.01" in str(
        raised.value
    )
    with pytest.raises(RecipeError, match="by no more than 0 nats per token"):
        choose_rate(curve(lambda p: 1.0 - p), 10)
