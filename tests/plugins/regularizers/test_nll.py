"""Negative log-likelihood."""

from tests.properties.claims import hold
from tests.properties.situations import Situation
from tests.properties.terms import (
    EVERY_TERM,
    agrees_with,
    mean_over_tokens,
    never_below_zero,
    token_logps,
)

from amnesis_plugins.regularizers.nll import NLL


def naive(term: NLL, situation: Situation) -> float:
    return -mean_over_tokens(token_logps(situation.answer))


SUBJECTS = [NLL()]
CLAIMS = [*EVERY_TERM, never_below_zero, agrees_with(naive)]

test_claims = hold(CLAIMS, SUBJECTS)
