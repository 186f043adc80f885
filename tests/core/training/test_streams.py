"""Two streams: exact accumulation, missing gradients, and equality with combining by hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import backward

import amnesis
from amnesis import contracts
from amnesis.contracts.stream import StreamLoss, WeightedTerm
from amnesis.data.batches import collate
from amnesis.data.examples import encode_rows
from amnesis.data.templates import Template
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import build_stream
from amnesis.errors import ContractError
from amnesis.scoring.forward import score
from amnesis.training.streams import Streams

COMBINERS: list[dict[str, Any]] = [
    {"name": "sum", "gamma": 0.5, "alpha": 2.0},
    {"name": "pcgrad"},
    {"name": "pcgrad", "scope": "global"},
    {"name": "sago"},
    {"name": "sago", "keep_retain": True},
]


def build(choice: dict[str, Any]) -> Any:
    return amnesis.create("combiner", **choice)


def gradients(
    model: Any, loss: StreamLoss, examples: Any, micro: int, streams: Streams, how: str
) -> None:
    """Accumulate one stream's gradient over micro-batches of ``micro`` examples."""
    batches = [
        collate(examples[k : k + micro], pad_token_id=1) for k in range(0, len(examples), micro)
    ]
    counts = loss.counts(batches)
    for batch in batches:
        reference = None
        if loss.needs.reference:
            with torch.no_grad():
                reference = score(model, batch, contracts.Needs(logps=True, logits=True))
        with streams.collect(how):
            backward(loss(score(model, batch, loss.needs, reference), counts))


@pytest.fixture
def examples(qa_rows: Any, tiny_tokenizer: Any) -> Any:
    return encode_rows(qa_rows, tiny_tokenizer, Template()).examples


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("objective", ["ga", "npo", "wga"])
@pytest.mark.parametrize("regularizer", ["nll", "kl"])
def test_accumulation_is_exact(
    tiny_llama: Any,
    examples: Any,
    dtype: torch.dtype,
    tolerance: float,
    objective: str,
    regularizer: str,
) -> None:
    """8 × 1, 4 × 2 and 2 × 4 ragged examples give each stream the gradient of 1 × 8."""
    model = tiny_llama.to(dtype)
    losses = {
        "forget": build_stream("forget", "objective", objective, default_registry()),
        "retain": build_stream("retain", "regularizer", regularizer, default_registry()),
    }
    if regularizer == "kl":  # at the reference its gradient is zero: compare away from it
        other = type(model)(model.config).to(dtype)
        losses["retain"] = StreamLoss("retain", (WeightedTerm(divergence(other)),))
    for weights in ({"gamma": 1.0, "alpha": 0.0}, {"gamma": 0.0, "alpha": 1.0}):
        whole: list[torch.Tensor] = []
        for micro in (8, 1, 2, 4):
            streams = Streams(model.named_parameters(), build({"name": "sum", **weights}))
            for name, loss in losses.items():
                gradients(model, loss, examples, micro, streams, name)
            streams.combine()  # leaves the one stream's gradient that has a weight
            got = [p.grad.clone() for p in model.parameters()]
            whole = whole or got
            gap = torch.stack([(a - b).norm() for a, b in zip(got, whole, strict=True)]).norm()
            size = torch.stack([b.norm() for b in whole]).norm()
            assert size > 0
            assert gap / size < tolerance


def divergence(other: Any) -> Any:
    """KL whose reference is another model, so that its gradient is not zero."""
    from amnesis.contracts import Term

    class Distance(Term):
        @property
        def needs(self) -> Any:
            return contracts.Needs(logits=True)

        def terms(self, scores: Any) -> torch.Tensor:
            q = torch.full_like(scores.logits, -1.0).log_softmax(-1)
            p = scores.logits.log_softmax(-1)
            kl: torch.Tensor = scores.unpack((q.exp() * (q - p)).sum(-1))
            return kl

    return Distance()


@pytest.mark.parametrize("choice", COMBINERS, ids=str)
@pytest.mark.parametrize("last", [True, False])
def test_streams_equal_combining_by_hand(
    tiny_llama: Any, examples: Any, choice: dict[str, Any], last: bool
) -> None:
    """Streamed in hooks or combined afterwards: the result is the combiner's own, bit for bit."""
    forget, retain = (collate(examples[k : k + 4], 1) for k in (0, 4))
    parameters = list(tiny_llama.parameters())

    def loss(batch: Any) -> torch.Tensor:
        return score(tiny_llama, batch, contracts.Needs(logps=True)).logps.sum()

    f = torch.autograd.grad(loss(forget), parameters)
    r = torch.autograd.grad(-loss(retain), parameters)
    expected = build(choice).combine(f, r)
    streams = Streams(tiny_llama.named_parameters(), build(choice))
    with streams.forget():
        backward(loss(forget))
    with streams.retain(last=last):
        backward(-loss(retain))
    streams.combine()
    for p, e in zip(parameters, expected, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, e, rtol=0, atol=0)


@pytest.mark.parametrize("choice", COMBINERS, ids=str)
@pytest.mark.parametrize("last", [True, False])
def test_a_missing_gradient_is_a_zero(choice: dict[str, Any], last: bool) -> None:
    """A parameter that only one stream touches is combined with a zero of the other."""
    both, only_f, only_r, none = (torch.nn.Parameter(torch.randn(3)) for _ in range(4))
    named = list({"both": both, "f": only_f, "r": only_r, "none": none}.items())
    streams = Streams(named, build(choice))
    with streams.forget():
        backward(both.sum() + 2 * only_f.sum())
    with streams.retain(last=last):
        backward(-3 * both.sum() + 5 * only_r.sum())
    streams.combine()
    ones = torch.ones(3)
    expected = build(choice).combine([ones, 2 * ones, None], [-3 * ones, None, 5 * ones])
    for p, e in zip((both, only_f, only_r), expected, strict=True):
        assert p.grad is not None
        assert e is not None
        torch.testing.assert_close(p.grad, e)
    assert none.grad is None


def test_last_of_several_retain_passes_combines_their_sum() -> None:
    p = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    streams = Streams([("p", p)], build({"name": "sago"}))
    for _ in range(2):
        with streams.forget():
            backward((p * torch.tensor([1.0, 1.0])).sum())
    for last in (False, True):
        with streams.retain(last=last):
            backward((p * torch.tensor([3.0, -3.0])).sum())
    streams.combine()
    assert p.grad is not None
    assert p.grad.tolist() == [2.0, -6.0]


@pytest.mark.parametrize("last", [True, False])
def test_without_a_combiner_the_two_gradients_are_added(last: bool) -> None:
    both, only_f, only_r, none = (torch.nn.Parameter(torch.randn(3)) for _ in range(4))
    streams = Streams({"both": both, "f": only_f, "r": only_r, "none": none}.items(), None)
    f, r = torch.randn(3), torch.randn(3)
    with streams.forget():
        backward((f * both).sum() + (f * only_f).sum())
    with streams.retain(last=last):
        backward((r * both).sum() + (r * only_r).sum())
    streams.combine()
    for p, expected in ((both, f + r), (only_f, f), (only_r, r)):
        assert p.grad is not None
        assert torch.equal(p.grad, expected)
    assert none.grad is None


def test_a_forget_stream_alone_leaves_its_gradient_as_it_is() -> None:
    p = torch.nn.Parameter(torch.zeros(3))
    streams = Streams([("p", p)], None)
    parts = torch.randn(2, 3)
    for part in parts:
        with streams.forget():
            backward((p * part).sum())
    streams.combine()
    assert p.grad is not None
    assert torch.equal(p.grad, parts[0] + parts[1])


def test_what_a_combiner_remembers_goes_on_in_other_streams() -> None:
    """A step after :meth:`load_state_dict` is what it would have been in one go."""
    gradients = torch.randn(3, 2, 5)

    def step(streams: Streams, p: torch.nn.Parameter, k: int) -> torch.Tensor:
        with streams.forget():
            backward((p * gradients[k, 0]).sum())
        with streams.retain(last=True):
            backward((p * gradients[k, 1]).sum())
        streams.combine()
        assert p.grad is not None
        combined, p.grad = p.grad, None
        return combined

    p = torch.nn.Parameter(torch.zeros(5))
    whole, cut, resumed = (Streams([("p", p)], build({"name": "gru"})) for _ in range(3))
    expected = [step(whole, p, k) for k in range(3)]
    for k in range(2):
        step(cut, p, k)
    resumed.load_state_dict({name: kept.clone() for name, kept in cut.state_dict().items()})
    assert torch.equal(step(resumed, p, 2), expected[2])
    fresh = Streams([("p", p)], build({"name": "gru"}))
    assert not torch.equal(step(fresh, p, 2), expected[2])


def test_sago_is_bit_equal_on_fixed_streams() -> None:
    """Discontinuous, so equal inputs are compared: any split of them gives the same bits."""
    f = [torch.randn(50, 7), torch.randn(9)]
    r = [torch.randn(50, 7), torch.randn(9)]
    sago = build({"name": "sago"})
    whole = sago.combine(f, r)
    parts = zip(torch.split(f[0], 13), torch.split(r[0], 13), strict=True)
    rows = [sago.combine([a], [b])[0] for a, b in parts]
    assert torch.equal(torch.cat(rows), whole[0])
    mask = (f[0].sign() * r[0].sign()) < 0
    assert torch.equal(torch.where(mask, r[0], f[0]), whole[0])


def test_two_backwards_in_the_last_retain_pass_are_refused() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    streams = Streams([("p", p)], build({"name": "sago"}))
    with streams.forget():
        backward((p * 2).sum())
    with (
        pytest.raises(ContractError, match="a second one was made inside it"),
        streams.retain(last=True),
    ):
        backward(p.sum())
        backward(p.sum())


@pytest.mark.parametrize(
    "name", ["sum", "sago", "pcgrad", "blur", "ngdiff", "gru", "cone", "torchjd"]
)
def test_combiners_do_not_see_the_loss_scale(name: str) -> None:
    """Of scaled losses: the combination of the gradients themselves, times the scale."""
    torch.manual_seed(0)
    values = torch.randn(2, 3, 2, 5)
    left = []
    for scale in (1.0, 4096.0):
        p = torch.nn.Parameter(torch.zeros(5))
        streams = Streams([("p", p)], build({"name": name}), scale=partial(float, scale))
        for f, r in zip(*values, strict=True):
            streams.watch(products=[("forget", "retain")])
            with streams.forget():
                backward(scale * (p * f).sum())
            with streams.retain(last=True):
                backward(scale * (p * r).sum())
            report = streams.combine()
            assert report.forget_norm == pytest.approx(f.sum(0).norm().item(), rel=1e-5)
            assert report.products["forget", "retain"]["p"] == pytest.approx(
                (f.sum(0) @ r.sum(0)).item(), rel=1e-4, abs=1e-5
            )
            assert p.grad is not None
            left.append(p.grad.clone() / scale)
            p.grad = None
    for plain, scaled in zip(left[:3], left[3:], strict=True):
        torch.testing.assert_close(scaled, plain, rtol=1e-5, atol=1e-6)


def test_a_step_that_overflows_leaves_no_trace_in_a_combiner_s_memory() -> None:
    p = torch.nn.Parameter(torch.zeros(2))
    streams = Streams([("p", p)], build({"name": "gru"}), scale=lambda: 2.0)
    for r in (torch.tensor([1.0, 2.0]), torch.tensor([float("inf"), 1.0])):
        with streams.forget():
            backward((p * torch.ones(2)).sum())
        with streams.retain(last=True):
            backward((p * r).sum())
        streams.combine()
        p.grad = None
    (memory,) = streams.state_dict().values()
    torch.testing.assert_close(memory, 0.8 * torch.tensor([0.5, 1.0]))


# What a float32 gradient can hold, and more: the square of less is nothing in float64 either.
ELEMENTS = st.floats(-4, 4).map(lambda x: x if abs(x) > 1e-100 else 0.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(ELEMENTS, ELEMENTS), min_size=1, max_size=8))
def test_the_report_says_what_the_gradients_are(pairs: list[tuple[float, float]]) -> None:
    f, r = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    p = torch.nn.Parameter(torch.zeros(len(pairs), dtype=torch.float64))
    streams = Streams([("p", p)], build({"name": "pcgrad"}))
    streams.watch(products=[("forget", "retain"), ("forget", "forget")])
    with streams.forget():
        backward((p * f).sum())
    with streams.retain(last=True):
        backward((p * r).sum())
    report = streams.combine()
    assert report.forget_norm == pytest.approx(f.norm().item())
    assert report.retain_norm == pytest.approx(r.norm().item())
    assert report.conflict_share == pytest.approx(
        ((f.sign() * r.sign()) < 0).double().mean().item()
    )
    assert report.zero_forget_share == pytest.approx((f == 0).double().mean().item())
    assert report.products["forget", "retain"]["p"] == pytest.approx(f.dot(r).item())
    scale = (f.norm() * r.norm()).item()
    assert report.cosine == pytest.approx(f.dot(r).item() / scale if scale > 0 else 0.0, abs=1e-9)


def test_frozen_parameters_are_left_alone(tiny_llama: Any, examples: Any) -> None:
    frozen = tiny_llama.model.layers[0].mlp.down_proj.weight.requires_grad_(False)
    batch = collate(examples[:4], 1)
    streams = Streams(tiny_llama.named_parameters(), build({"name": "sum"}))
    for stream in (streams.forget(), streams.retain(last=True)):
        with stream:
            backward(score(tiny_llama, batch, contracts.Needs(logps=True)).logps.sum())
    streams.combine()
    assert frozen.grad is None
