"""Negative preference optimization."""

import math

import pytest
import torch
from hypothesis import strategies as st
from tests.properties.claims import hold, sampled
from tests.properties.situations import Situation, situations
from tests.properties.terms import (
    EVERY_TERM,
    agrees_with,
    gradient,
    never_below_zero,
    same,
    token_logps,
)

from amnesis_plugins.objectives.ga import GradientAscent
from amnesis_plugins.objectives.npo import NPO


def naive(term: NPO, situation: Situation) -> float:
    own = token_logps(situation.answer)
    ref = token_logps(situation.answer, reference=True)
    values = [
        2 / term.beta * math.log1p(math.exp(term.beta * (sum(a) - sum(b))))
        for a, b in zip(own, ref, strict=True)
    ]
    return sum(values) / len(values)


SUBJECTS = [NPO(), NPO(beta=1.0)]
CLAIMS = [*EVERY_TERM, never_below_zero, agrees_with(naive)]

test_claims = hold(CLAIMS, SUBJECTS)


def ascent_by_example(situation: Situation) -> list[torch.Tensor]:
    """GA's gradient, times N/B: the mean over examples of the sum over their tokens."""
    tokens, examples = int(situation.answer.mask.sum()), len(situation.answer.mask)
    return [g * tokens / examples for g in gradient(GradientAscent(), situation)]


@sampled(situations(), st.floats(0.01, 10))
def test_at_the_reference_it_is_ascent_for_every_beta(situation: Situation, beta: float) -> None:
    there = situation.at_reference()
    same(gradient(NPO(beta=beta), there), ascent_by_example(there))


@sampled(situations())
def test_it_becomes_ascent_as_beta_vanishes(situation: Situation) -> None:
    same(gradient(NPO(beta=1e-7), situation), ascent_by_example(situation), tolerance=1e-4)


@sampled(situations(), st.sampled_from([0.1, 1.0]))
def test_each_example_is_weighted_by_how_far_it_is_from_the_reference(
    situation: Situation, beta: float
) -> None:
    own = [sum(e) for e in token_logps(situation.answer)]
    ref = [sum(e) for e in token_logps(situation.answer, reference=True)]
    weights = [2 / (1 + math.exp(beta * (b - a))) for a, b in zip(own, ref, strict=True)]
    scale = torch.tensor(weights, dtype=torch.float64)[:, None, None]
    found = gradient(NPO(beta=beta), situation)
    same(found, [scale * g for g in ascent_by_example(situation)], tolerance=1e-9)


@pytest.mark.parametrize("beta", [0.0, -1.0])
def test_beta_is_positive(beta: float) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        NPO(beta=beta)
