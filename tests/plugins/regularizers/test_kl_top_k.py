"""KL with a top-k reference: a lower bound, ≥ 0, 0 at θ°, and cached like the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import backward

import amnesis
from amnesis.data.batches import collate
from amnesis.data.examples import encode_rows
from amnesis.data.templates import Template
from amnesis.scoring.forward import score
from amnesis.scoring.reference import FrozenCopy, cached
from amnesis.scoring.scores import Scores


def divergence(own: torch.Tensor, reference: torch.Tensor, k: int | None) -> torch.Tensor:
    term = amnesis.create("regularizer", "kl", top_k=k)
    rows = torch.ones(1, own.shape[0], dtype=torch.bool)
    given_scores = Scores(rows, logits=reference)
    scores = Scores(rows, logits=own, ref_logits=reference, ref_top=given_scores.top(k or 1))
    terms: torch.Tensor = term.terms(scores)
    return terms[0]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.floats(0.1, 8))
def test_it_is_a_lower_bound_that_grows_with_k(seed: int, k: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    own, reference = spread * torch.randn(2, 3, 12, generator=generator)
    whole, kept = divergence(own, reference, None), divergence(own, reference, k)
    assert (kept >= -1e-6).all()
    assert (kept <= whole + 1e-5 * (1 + whole)).all()
    more = divergence(own, reference, min(k + 1, 12))
    assert (more >= kept - 1e-5 * (1 + kept)).all()
    torch.testing.assert_close(divergence(own, reference, 12), whole, rtol=1e-4, atol=1e-5)
    assert divergence(reference, reference, k).abs().max() < 1e-5


def test_its_gradient_at_the_reference_is_zero() -> None:
    reference = torch.randn(4, 20, dtype=torch.float64)
    own = reference.clone().requires_grad_()
    backward(divergence(own, reference, 5).sum())
    assert own.grad is not None
    assert own.grad.abs().max() < 1e-6


@pytest.mark.parametrize("positions", ["labels", "all"])
def test_cached_and_live_references_agree(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, positions: str
) -> None:
    term = amnesis.create("regularizer", "kl", top_k=7, positions=positions)
    examples = encode_rows(qa_rows, tiny_tokenizer, Template()).examples
    batch = collate(examples[:5], 1)
    known = cached(tiny_llama, examples, term.needs, pad_token_id=1)
    frozen = FrozenCopy(tiny_llama)
    with torch.no_grad():
        for p in tiny_llama.parameters():
            p.add_(0.02 * torch.randn_like(p))
    values = [
        term.summed(score(tiny_llama, batch, term.needs, reference.scores(batch, term.needs)))
        for reference in (known, frozen)
    ]
    assert values[0] > 0.01
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-5)


def test_a_run_uses_it(tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any) -> None:
    result = amnesis.Unlearner(
        tiny_llama,
        tiny_tokenizer,
        objective="ga",
        regularizer={"name": "kl", "top_k": 10},
        combiner="sum",
        training={"steps": 3, "learning_rate": 1e-2},
        device="cpu",
    ).fit(qa_rows[:4], qa_rows[4:])
    losses = [step["retain/loss"] for step in result.trajectory]
    assert losses[0] == pytest.approx(0, abs=1e-5)
    assert losses[-1] > 0
