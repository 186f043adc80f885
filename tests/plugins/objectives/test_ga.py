"""Gradient ascent."""

from tests.properties.claims import hold
from tests.properties.situations import Situation
from tests.properties.terms import EVERY_TERM, agrees_with, mean_over_tokens, token_logps

from amnesis_plugins.objectives.ga import GradientAscent


def naive(term: GradientAscent, situation: Situation) -> float:
    return mean_over_tokens(token_logps(situation.answer))


SUBJECTS = [GradientAscent()]
CLAIMS = [*EVERY_TERM, agrees_with(naive)]

test_claims = hold(CLAIMS, SUBJECTS)
