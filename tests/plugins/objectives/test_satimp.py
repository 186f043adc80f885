"""Saturation and importance."""

import math

import torch
from tests.properties.claims import hold, sampled
from tests.properties.situations import Situation, situations
from tests.properties.terms import (
    EVERY_TERM,
    agrees_with,
    gradient,
    mean_over_tokens,
    same,
    token_logps,
)
from torch.autograd import backward

from amnesis_plugins.objectives.satimp import SatImp
from amnesis_plugins.objectives.wga import WGA


def naive(term: SatImp, situation: Situation) -> float:
    def value(own: float) -> float:
        p = math.exp(own)
        return math.pow(p, term.beta1) * math.pow(1 - p, term.beta2) * own

    return mean_over_tokens([[value(v) for v in e] for e in token_logps(situation.answer)])


SUBJECTS = [SatImp(), SatImp(beta1=2.0, beta2=0.5), SatImp(beta1=0.0, beta2=0.0)]
CLAIMS = [*EVERY_TERM, agrees_with(naive)]

test_claims = hold(CLAIMS, SUBJECTS)


@sampled(situations())
def test_beta2_zero_is_wga(situation: Situation) -> None:
    same(gradient(SatImp(beta1=2.0, beta2=0.0), situation), gradient(WGA(beta=2.0), situation))


def test_a_logp_that_rounding_left_above_zero_is_certainty() -> None:
    logps = torch.tensor([[1e-7]], requires_grad=True)
    loss = SatImp(beta2=0.5).loss(logps, torch.ones(1, 1).bool())
    backward(loss)
    assert logps.grad is not None
    assert loss.item() == logps.grad.item() == 0
