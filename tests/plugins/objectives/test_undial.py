"""Self-distillation on adjusted logits."""

import math

from tests.properties.claims import hold, sampled
from tests.properties.situations import Situation, situations
from tests.properties.terms import (
    EVERY_TERM,
    agrees_with,
    gradient,
    log_softmax,
    mean_over_tokens,
    never_below_zero,
    same,
)

from amnesis_plugins.objectives.undial import UNDIAL


def naive(term: UNDIAL, situation: Situation) -> float:
    text = situation.answer

    def value(logits: list[float], ref: list[float], true: int) -> float:
        lowered = [z - term.beta * (v == true) for v, z in enumerate(ref)]
        goal = [math.exp(q) for q in log_softmax(lowered)]
        return -sum(q * p for q, p in zip(goal, log_softmax(logits), strict=True))

    return mean_over_tokens(
        [
            [
                value(text.logits[b, i].tolist(), text.ref_logits[b, i].tolist(), int(label))
                for i, label in enumerate(text.labels[b])
                if text.mask[b, i]
            ]
            for b in range(len(text.mask))
        ]
    )


SUBJECTS = [UNDIAL(), UNDIAL(beta=0.0)]
CLAIMS = [*EVERY_TERM, never_below_zero, agrees_with(naive)]

test_claims = hold(CLAIMS, SUBJECTS)


@sampled(situations())
def test_with_beta_zero_the_reference_is_where_it_wants_to_be(situation: Situation) -> None:
    there = situation.at_reference()
    same(gradient(UNDIAL(beta=0.0), there), [0 * t for t in there.said])
