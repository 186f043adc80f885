"""Simple negative preference optimization."""

import math

import torch
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
from torch.autograd import backward

from amnesis_plugins.objectives.simnpo import SimNPO


def naive(term: SimNPO, situation: Situation) -> float:
    def value(example: list[float]) -> float:
        inside = term.beta * (-sum(example) / len(example) - term.delta)
        return -2 / term.beta * math.log(1 / (1 + math.exp(-inside)))

    values = [value(example) for example in token_logps(situation.answer)]
    return sum(values) / len(values)


SUBJECTS = [SimNPO(), SimNPO(beta=4.5, delta=0.5)]
CLAIMS = [*EVERY_TERM, never_below_zero, agrees_with(naive)]

test_claims = hold(CLAIMS, SUBJECTS)


@sampled(situations())
def test_it_becomes_length_normalised_ascent_as_beta_vanishes(situation: Situation) -> None:
    leaves = situation.with_gradient()
    own = leaves.scores()
    backward((own.logps.sum(-1) / own.mask.sum(-1)).mean())
    expected = [torch.zeros_like(t) if t.grad is None else t.grad for t in leaves.said]
    same(gradient(SimNPO(beta=1e-7), situation), expected, tolerance=1e-4)
    same(gradient(SimNPO(beta=1e-7, delta=3.0), situation), expected, tolerance=1e-4)
