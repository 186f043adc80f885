"""Weighted gradient ascent."""

import math

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

from amnesis_plugins.objectives.ga import GradientAscent
from amnesis_plugins.objectives.wga import WGA


def naive(term: WGA, situation: Situation) -> float:
    logps = token_logps(situation.answer)
    return mean_over_tokens([[math.exp(v) ** term.beta * v for v in e] for e in logps])


SUBJECTS = [WGA(), WGA(beta=5.0), WGA(beta=0.0)]
CLAIMS = [*EVERY_TERM, agrees_with(naive)]

test_claims = hold(CLAIMS, SUBJECTS)


@sampled(situations())
def test_beta_zero_is_ascent(situation: Situation) -> None:
    same(gradient(WGA(beta=0.0), situation), gradient(GradientAscent(), situation))
