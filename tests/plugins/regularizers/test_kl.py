"""Divergence from the model before unlearning."""

import math
from dataclasses import replace
from typing import Any

import torch
from tests.properties.claims import for_any, hold
from tests.properties.situations import Situation, situations
from tests.properties.terms import (
    EVERY_TERM,
    agrees_with,
    agrees_with_finite_differences,
    log_softmax,
    mean_over_tokens,
    nothing_to_do_at_the_reference,
)

from amnesis.scoring.scores import Scores
from amnesis_plugins.regularizers.kl import KL


def naive(term: KL, situation: Situation) -> float:
    text = situation.answer

    def value(logits: list[float], ref: list[float]) -> float:
        pairs = zip(log_softmax(logits), log_softmax(ref), strict=True)
        return sum(math.exp(q) * (q - p) for p, q in pairs)

    return mean_over_tokens(
        [
            [
                value(text.logits[b, i].tolist(), text.ref_logits[b, i].tolist())
                for i in range(text.mask.shape[1])
                if text.mask[b, i]
            ]
            for b in range(len(text.mask))
        ]
    )


SUBJECTS = [KL()]
CLAIMS = [*EVERY_TERM, nothing_to_do_at_the_reference, agrees_with(naive)]

test_claims = hold(CLAIMS, SUBJECTS)


def resolved(situation: Situation) -> bool:
    """Whether what is left beside the likeliest entries, 1 − Σp, is far from rounding."""
    text = situation.answer
    p, reference = text.logits.softmax(-1), text.ref_logits.softmax(-1)
    top = reference.topk(3).indices
    return all(float((1 - q.gather(-1, top).sum(-1)).min()) > 1e-4 for q in (p, reference))


@for_any(situations().filter(resolved))
def agrees_with_finite_differences_of_what_is_resolved(term: KL, situation: Situation) -> None:
    """A difference of losses over 1e-4 magnifies the rounding of 1 − Σp ten thousand times."""
    check: Any = agrees_with_finite_differences
    check.__wrapped__(term, situation)


test_claims_of_the_likeliest = hold(
    [
        *(claim for claim in EVERY_TERM if claim is not agrees_with_finite_differences),
        agrees_with_finite_differences_of_what_is_resolved,
        nothing_to_do_at_the_reference,
    ],
    [KL(top_k=1), KL(top_k=3)],
)


def test_two_terms_with_other_numbers_of_entries_share_one_reference(tiny: Situation) -> None:
    """What is kept is the larger number; each reads its own."""
    alone = [KL(top_k=k).loss(tiny.answer.scores()) for k in (1, 4)]
    assert alone[0] < alone[1]
    every = tiny.answer.scores()
    logps, indices = every.ref_top
    likeliest = Scores(every.mask, logits=every.logits, ref_top=(logps[:, :1], indices[:, :1]))
    torch.testing.assert_close(KL(top_k=1).loss(likeliest), alone[0])


def test_all_positions_are_prompt_and_answer_but_never_padding() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[False, False, True, True, False, False]])
    positions = torch.tensor([[True, True, True, True, False, False]])
    own, ref = torch.randn(2, 4, 6, dtype=torch.float64)  # rows: the four positions
    term = KL(positions="all")
    scores = Scores(mask, positions, rows=positions, logits=own, ref_logits=ref)
    divergence = (ref.log_softmax(-1).exp() * (ref.log_softmax(-1) - own.log_softmax(-1))).sum(-1)
    torch.testing.assert_close(term.loss(scores), divergence.mean())
    assert term.needs.all_positions


def test_half_precision_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    mask = torch.ones(1, 50, dtype=torch.bool)
    own, ref = (3 * torch.randn(2, 50, 400)).bfloat16()
    rounded = KL().loss(Scores(mask, logits=own, ref_logits=ref))
    exact = KL().loss(Scores(mask, logits=own.double(), ref_logits=ref.double()))
    torch.testing.assert_close(rounded.double(), exact, rtol=1e-6, atol=0)


def test_impossible_tokens_of_both_models_count_nothing(tiny: Situation) -> None:
    """A vocabulary padded with −∞ gives the divergence over what is left of it."""
    logits, ref = tiny.answer.logits.clone(), tiny.answer.ref_logits.clone()
    short = replace(tiny.answer, logits=logits[..., :-2], ref_logits=ref[..., :-2])
    logits[..., -2:] = ref[..., -2:] = float("-inf")
    long = replace(tiny.answer, logits=logits, ref_logits=ref, labels=tiny.answer.labels * 0)
    short = replace(short, labels=long.labels)
    torch.testing.assert_close(KL().loss(long.scores()), KL().loss(short.scores()))
