"""Losses of whole distributions without logits: equal to the plain path, exactly 0 at θ°."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.scoring.test_chunked_logps import KINDS, head_in_chunks, model_of
from torch.autograd import backward
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import amnesis
from amnesis.contracts import StreamLoss, Term, WeightedTerm
from amnesis.data.batches import Batch, collate
from amnesis.data.examples import encode_rows
from amnesis.data.templates import Template
from amnesis.discovery.registry import default_registry
from amnesis.models.trainable import LoraSettings, with_lora
from amnesis.scoring import logits as chunks
from amnesis.scoring.chunked_sums import SumOf, sum_in_chunks
from amnesis.scoring.forward import score, score_beside_itself
from amnesis.scoring.head import ChunkedHead
from amnesis.scoring.logits import Finish
from amnesis.scoring.reference import AdapterOff, FrozenCopy, Reference, cached
from amnesis.scoring.scores import Needs

FINISHES = [
    Finish(),
    Finish("multiplied", 0.3),
    Finish("divided", 3.0),
    Finish("capped", 2.0),
]
TERMS: dict[str, tuple[str, dict[str, Any]]] = {
    "kl": ("regularizer", {}),
    "kl, all positions": ("regularizer", {"name": "kl", "positions": "all"}),
    "kl, likeliest": ("regularizer", {"name": "kl", "top_k": 5}),
    "jensun": ("regularizer", {}),
    "unilogit": ("objective", {}),
    "me": ("objective", {}),
    "ihl": ("objective", {}),
    "ceu": ("objective", {"name": "ceu", "skip_first": True}),
    "undial": ("objective", {}),
    "pdu": ("objective", {}),
}


def term_of(name: str) -> Term:
    kind, choice = TERMS[name]
    term: Term = amnesis.create(kind, **{"name": name, **choice})
    return term


def weighted_square_of_log_softmax(weights: torch.Tensor, ref: torch.Tensor) -> SumOf:
    """A sum that no closed form is made for."""

    def sum_of(rows: slice, logits: torch.Tensor) -> torch.Tensor:
        values = (logits.log_softmax(-1) - ref[rows]).square().mean(-1)
        return (weights[rows] * values).sum()

    return sum_of


def inputs(
    rows: int, vocabulary: int, bias: bool, dtype: torch.dtype = torch.float64
) -> tuple[list[torch.Tensor], SumOf]:
    generator = torch.Generator().manual_seed(rows * 100 + vocabulary)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    leaves = [normal(rows, 5), normal(vocabulary, 5), *([normal(vocabulary)] if bias else [])]
    sum_of = weighted_square_of_log_softmax(
        (normal(rows) > 0).to(dtype), normal(rows, vocabulary).log_softmax(-1)
    )
    return [leaf.requires_grad_() for leaf in leaves], sum_of


def plain(leaves: list[torch.Tensor], sum_of: SumOf, finish: Finish) -> torch.Tensor:
    return sum_of(slice(None), finish(torch.nn.functional.linear(*leaves)))


def in_chunks(leaves: list[torch.Tensor], sum_of: SumOf, finish: Finish, size: int) -> torch.Tensor:
    hidden, weight, *bias = leaves
    return sum_in_chunks(hidden, weight, bias[0] if bias else None, lambda: sum_of, size, finish)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 20),
    st.integers(2, 9),
    st.integers(1, 25),
    st.booleans(),
    st.sampled_from(FINISHES),
    st.floats(-3, 3),
)
def test_values_and_gradients_are_the_plain_path_s(
    rows: int, vocabulary: int, size: int, bias: bool, finish: Finish, factor: float
) -> None:
    results = []
    for chunked in (False, True):
        leaves, sum_of = inputs(rows, vocabulary, bias)
        if chunked:
            total = in_chunks(leaves, sum_of, finish, size)
        else:
            total = plain(leaves, sum_of, finish)
        backward(factor * total)
        results.append([total.detach(), *(leaf.grad for leaf in leaves)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("finish", FINISHES, ids=lambda finish: finish.kind)
def test_the_gradient_is_the_slope(finish: Finish) -> None:
    leaves, sum_of = inputs(7, 5, bias=True)
    check: Any = torch.autograd.gradcheck
    assert check(lambda *at: in_chunks(list(at), sum_of, finish, 3), leaves)


def test_a_second_backward_pass_computes_the_gradient_again() -> None:
    leaves, sum_of = inputs(7, 5, bias=True)
    total = in_chunks(leaves, sum_of, Finish(), 3)
    backward(total, retain_graph=True)
    once = [leaf.grad.clone() for leaf in leaves if leaf.grad is not None]
    backward(-3 * total)
    for leaf, first in zip(leaves, once, strict=True):
        torch.testing.assert_close(leaf.grad, -2 * first)


@pytest.mark.parametrize("trained", [0, 1, 2])
def test_what_is_frozen_gets_no_gradient(trained: int) -> None:
    leaves, sum_of = inputs(7, 5, bias=True)
    for place, leaf in enumerate(leaves):
        leaf.requires_grad_(place == trained)
    backward(in_chunks(leaves, sum_of, Finish(), 3))
    assert [leaf.grad is not None for leaf in leaves] == [place == trained for place in range(3)]


def test_without_gradient_none_is_computed() -> None:
    leaves, sum_of = inputs(7, 5, bias=False)
    asked: list[bool] = []

    def watched(rows: slice, logits: torch.Tensor) -> torch.Tensor:
        asked.append(logits.requires_grad)
        return sum_of(rows, logits)

    with torch.no_grad():
        in_chunks(leaves, watched, Finish(), 3)
    assert asked == [False] * 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_no_more_than_the_plain_path(dtype: torch.dtype) -> None:
    """Also where most of the gradient's elements are too small for float16 by themselves."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(96, 16).to(dtype), (torch.randn(3000, 16) / 4).to(dtype)
    ref = (hidden.double() @ weight.double().T + 0.1 * torch.randn(96, 3000)).log_softmax(-1)

    def sum_of(rows: slice, logits: torch.Tensor) -> torch.Tensor:
        wide = logits.float() if logits.element_size() < 4 else logits
        return -(ref[rows].to(wide.dtype).exp() * wide.log_softmax(-1)).sum()

    def gradients(precision: torch.dtype, chunked: bool) -> list[torch.Tensor]:
        leaves = [t.to(precision).requires_grad_() for t in (hidden, weight)]
        total = in_chunks(leaves, sum_of, Finish(), 7) if chunked else None
        total = plain(leaves, sum_of, Finish()) if total is None else total
        backward(64 * total)  # as a loss scaler would
        return [leaf.grad.double() / 64 for leaf in leaves if leaf.grad is not None]

    exact = gradients(torch.float64, False)
    for g, rounded, true in zip(
        gradients(dtype, True), gradients(dtype, False), exact, strict=True
    ):
        assert (g - true).norm() < 1.1 * (rounded - true).norm()


# ---- in a model's forward pass


@pytest.fixture
def batch(qa_rows: Any, tiny_tokenizer: Any) -> Batch:
    return collate(encode_rows(qa_rows, tiny_tokenizer, Template()).examples, pad_token_id=1)


def moved(model: Any) -> Any:
    """Return the model with other weights, as after some steps."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * p.std(correction=0) * torch.randn_like(p))
    return model


def step(
    model: Any,
    loss: StreamLoss,
    batch: Batch,
    reference: Reference,
    head: ChunkedHead | None,
    further: Needs | None = None,
) -> list[torch.Tensor]:
    """Return the loss of a batch and the gradient of every parameter."""
    model.zero_grad()
    needs = loss.needs | (further or Needs())
    frozen = reference.scores(batch, needs)
    row_terms = loss.row_terms if head is not None else ()
    scores = score(model, batch, needs, frozen, head, row_terms)
    total = loss(scores, loss.counts([batch]))
    backward(total)
    return [total.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10 * max(1.0, b.abs().max().item()))


@pytest.mark.parametrize("name", TERMS)
def test_every_term_that_looks_at_each_place_by_itself(
    name: str, batch: Batch, tiny_tokenizer: Any
) -> None:
    model = model_of("llama tied", len(tiny_tokenizer)).double()
    loss = StreamLoss("retain", (WeightedTerm(term_of(name), 0.7),))
    assert loss.row_terms == (loss.terms[0].term,)
    reference = FrozenCopy(model)
    moved(model)
    expected = step(model, loss, batch, reference, None)
    for size in (1, 8, 37):
        same(step(model, loss, batch, reference, head_in_chunks(model, size)), expected)


def test_no_term_that_says_so_is_left_out() -> None:
    registry = default_registry()
    names = {
        name
        for kind in ("objective", "regularizer")
        for name in registry.names(kind)
        if getattr(registry.get(kind, name).load(), "by_place", False)
    }
    assert names == {name.partition(",")[0] for name in TERMS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_that_can_be_served(kind: str, batch: Batch, tiny_tokenizer: Any) -> None:
    model = model_of(kind, len(tiny_tokenizer)).double()
    loss = StreamLoss("retain", (WeightedTerm(term_of("kl")),))
    reference = FrozenCopy(model)
    moved(model)
    expected = step(model, loss, batch, reference, None)
    assert expected[0] > 1e-6
    same(step(model, loss, batch, reference, head_in_chunks(model, 8)), expected)


def test_terms_of_all_kinds_in_one_stream(batch: Batch, tiny_tokenizer: Any) -> None:
    """Two sums in chunks, log-probabilities of both models, and hidden states."""
    model = model_of("llama tied", len(tiny_tokenizer)).double()
    terms = [term_of("kl"), term_of("me"), amnesis.create("objective", "npo")]
    terms.append(amnesis.create("regularizer", "representation", layer=1))
    loss = StreamLoss("retain", tuple(WeightedTerm(t, 0.5 + k) for k, t in enumerate(terms)))
    reference = FrozenCopy(model)
    moved(model)
    expected = step(model, loss, batch, reference, None)
    same(step(model, loss, batch, reference, head_in_chunks(model, 8)), expected)


class Whole(Term):
    """A loss that reads logits of all places at once."""

    formula = "mean z²"
    source = "test"

    @property
    def needs(self) -> Needs:
        return Needs(logits=True)

    def terms(self, scores: Any) -> torch.Tensor:
        values: torch.Tensor = scores.unpack(scores.logits.square().mean(-1))
        return values


def test_one_term_that_reads_whole_logits_has_them_made(batch: Batch, tiny_tokenizer: Any) -> None:
    model = model_of("llama", len(tiny_tokenizer)).double()
    loss = StreamLoss("retain", (WeightedTerm(term_of("kl")), WeightedTerm(Whole())))
    assert loss.row_terms == ()
    reference = FrozenCopy(model)
    moved(model)
    expected = step(model, loss, batch, reference, None)
    same(step(model, loss, batch, reference, head_in_chunks(model, 8)), expected)


@pytest.mark.parametrize("kind", ["llama tied", "gemma2 (soft-capped)"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["kl", "kl, all positions", "kl, likeliest", "jensun"])
def test_the_gradient_at_the_reference_is_exactly_zero(
    kind: str, dtype: torch.dtype, name: str, batch: Batch, tiny_tokenizer: Any
) -> None:
    model = model_of(kind, len(tiny_tokenizer)).to(dtype)
    loss = StreamLoss("retain", (WeightedTerm(term_of(name)),))
    head = head_in_chunks(model, 8)
    scores = score_beside_itself(model, batch, loss.needs, head, loss.row_terms)
    assert scores.sum_of(loss.row_terms[0]) is not None
    backward(loss(scores, loss.counts([batch])))
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    if name != "kl, likeliest":  # of the tail only the sum is known, so rounding is left
        assert not any(g.any() for g in gradients)


def make_chunks_small(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let chunks take so many bytes, however few rows these are."""
    monkeypatch.setitem(chunks.CHUNK_BYTES, "cpu", size)
    monkeypatch.setattr(chunks, "FEWEST_ROWS", 1)


@pytest.mark.parametrize("name", ["kl", "kl, all positions", "kl, likeliest"])
@pytest.mark.parametrize("trains", [True, False])
def test_a_cached_reference_is_hidden_states_and_a_head(
    name: str,
    trains: bool,
    batch: Batch,
    qa_rows: Any,
    tiny_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The head is copied where it trains, and the model's own where it does not."""
    make_chunks_small(monkeypatch, 8 * 8 * len(tiny_tokenizer))
    model = model_of("phi (biased head)", len(tiny_tokenizer)).double()
    model.get_output_embeddings().requires_grad_(trains)
    loss = StreamLoss("retain", (WeightedTerm(term_of(name)),))
    examples = encode_rows(qa_rows, tiny_tokenizer, Template()).examples
    known = cached(model, examples, loss.needs, pad_token_id=1, batch_size=3)
    frozen = FrozenCopy(model)
    if loss.needs.ref_logits:
        kept = known.scores(batch, loss.needs).head_rows
        rows = batch.positions if loss.needs.all_positions else batch.mask
        assert kept.shape == (int(rows.sum()), 32)
    before = model.get_output_embeddings().weight.detach().clone()
    moved(model)
    if not trains:
        with torch.no_grad():
            model.get_output_embeddings().weight.copy_(before)
        frozen_bias = frozen._model.get_output_embeddings().bias
        with torch.no_grad():
            model.get_output_embeddings().bias.copy_(frozen_bias)
    expected = step(model, loss, batch, frozen, None)
    assert expected[0] > 1e-6
    for head in (None, head_in_chunks(model, 8)):
        same(step(model, loss, batch, known, head), expected)


def test_a_peft_model_without_its_adapter_is_a_reference_in_chunks(
    batch: Batch, tiny_tokenizer: Any
) -> None:
    base = model_of("llama tied", len(tiny_tokenizer)).double()
    frozen = FrozenCopy(base)
    model = with_lora(base, LoraSettings(r=2))
    reference = AdapterOff(model)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.2)
    loss = StreamLoss("retain", (WeightedTerm(term_of("kl")),))
    expected = step(model, loss, batch, frozen, None)
    assert expected[0] > 1e-6
    same(step(model, loss, batch, reference, head_in_chunks(model, 8)), expected)


@contextmanager
def most_rows_of(vocabulary: int, width: int) -> Iterator[Callable[[], int]]:
    """Inside ``with``, count the rows of logits in the largest tensor that is made."""
    largest = 0

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for t in tree_leaves(out):
                if isinstance(t, torch.Tensor) and t.shape[-1:] == (vocabulary,):
                    is_weight = t.shape == (width, vocabulary)
                    largest = max(largest, 0 if is_weight else t.numel() // vocabulary)
            return out

    watch = Watch()  # type: ignore[no-untyped-call]
    with watch:
        yield lambda: largest


@pytest.mark.parametrize("copied", [True, False])
def test_no_logits_beyond_a_chunk_are_ever_made(
    copied: bool, qa_rows: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the model's nor the reference's, cached or run, in all of a fit."""
    vocabulary = len(tiny_tokenizer)
    make_chunks_small(monkeypatch, 8 * 4 * vocabulary)
    if copied:
        monkeypatch.setattr("amnesis.scoring.reference.ROWS_IN_MEMORY", 0)
    model = model_of("llama tied", vocabulary)
    unlearner = amnesis.Unlearner(
        model,
        tiny_tokenizer,
        "unilogit",
        "kl",
        "sago",
        training={"steps": 2, "batch_size": 4, "learning_rate": 1e-3},
        device="cpu",
    )
    with most_rows_of(vocabulary, 32) as largest:
        unlearner.fit(qa_rows[:4], qa_rows[4:])
    assert largest() == 8


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "sago": {"combiner": "sago"},
    "micro-batches and a probe": {"combiner": "pcgrad", "micro_batch_size": 1},
    "adapter": {"combiner": "sago", "lora": True},
    "perturbed": {"combiner": "sum", "robust": {"name": "sam", "rho": 0.05}},
    "a copy": {"combiner": "sum", "runs": True},
    "gradient checkpointing": {"combiner": "sum", "gradient_checkpointing": True},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_run_in_chunks_is_the_run(
    name: str, qa_rows: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = dict(CONFIGURATIONS[name])
    lora, runs = choice.pop("lora", False), choice.pop("runs", False)
    method = {key: choice.pop(key) for key in ("combiner", "robust") if key in choice}
    if runs:
        monkeypatch.setattr("amnesis.scoring.reference.ROWS_IN_MEMORY", 0)

    def trajectory() -> list[dict[str, float]]:
        model = model_of("llama tied", len(tiny_tokenizer)).double()
        torch.manual_seed(5)
        if lora:
            model = with_lora(model, LoraSettings(r=2)).double()
        fitted = amnesis.Unlearner(
            copy.deepcopy(model),
            tiny_tokenizer,
            "unilogit",
            ["kl", {"name": "nll", "weight": 0.1}],
            probes=[{"name": "g_effect", "every": 1}],
            training={"steps": 3, "batch_size": 3, "learning_rate": 1e-3, **choice},
            device="cpu",
            **method,
        ).fit(qa_rows[:4], qa_rows[4:])
        return fitted.trajectory

    whole = trajectory()
    make_chunks_small(monkeypatch, 7 * 8 * len(tiny_tokenizer))
    for expected, found in zip(whole, trajectory(), strict=True):
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-9)
