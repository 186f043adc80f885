"""Saliency masks: what they let through, made once, kept and resumed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.properties.claims import for_any, hold
from tests.properties.combiners import EVERY_COMBINER, Pair, combined, flat, gradients
from torch.autograd import backward

from amnesis.contracts import Combiner, TensorState
from amnesis.training.streams import Streams
from amnesis_plugins.combiners.pcgrad import PCGrad
from amnesis_plugins.combiners.sago import SAGO
from amnesis_plugins.combiners.saliency import Saliency


@for_any(gradients())
def lets_no_more_through_than_its_share(saliency: Combiner, pair: Pair) -> None:
    """Of n elements with distinct |f|, at most the share moves, and those of largest |f|."""
    assert isinstance(saliency, Saliency)
    f, r = pair
    out = flat(combined(saliency, f, r))
    inner = flat(combined(saliency.combiner or _sum(), f, r))
    if saliency.of == "elements" and saliency.share < 1:
        moved = out != 0
        assert not (moved & (flat(f).abs() < _smallest(saliency, f))).any()
        assert moved.sum() <= saliency.share * moved.numel() + 1e-9
    if saliency.share == 1:
        torch.testing.assert_close(out, inner, rtol=0, atol=0)


def _smallest(saliency: Saliency, f: Any) -> float:
    """Return the magnitude of the last element that a sort would let through."""
    ranked = flat(f).abs().sort(descending=True).values
    count = int(saliency.share * ranked.numel())
    return float(ranked[count - 1]) if count else float("inf")


def _sum() -> Combiner:
    from amnesis_plugins.combiners.sum import Sum

    return Sum()


SUBJECTS = [
    Saliency(share=1.0),
    Saliency(share=0.4, combiner=SAGO()),
    Saliency(share=0.5, of="tensors", combiner=PCGrad()),
]
CLAIMS = [*EVERY_COMBINER, lets_no_more_through_than_its_share]
test_claims = hold(CLAIMS, SUBJECTS)


def test_the_threshold_is_that_of_a_sort() -> None:
    torch.manual_seed(0)
    f = [torch.randn(40, 25), torch.randn(500).mul_(3)]
    r = [torch.ones(40, 25), torch.ones(500)]
    out = Saliency(share=0.3).combine(f, r)
    magnitudes = torch.cat([t.abs().flatten() for t in f])
    threshold = magnitudes.sort(descending=True).values[450]
    for t, o in zip(f, out, strict=True):
        assert o is not None
        assert torch.equal(o != 0, t.abs() > threshold)


def test_the_mask_is_of_the_first_step_and_is_resumed() -> None:
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.zeros(30))
    saliency = Saliency(share=0.5, combiner=SAGO())
    first = torch.randn(30)
    streams = Streams([("p", p)], saliency)
    for step in range(3):
        f = first if step == 0 else torch.randn(30)
        r = torch.randn(30)
        if step == 2:  # as a checkpoint does
            kept = {name: t.clone() for name, t in streams.state_dict().items()}
            streams = Streams([("p", p)], saliency)
            streams.load_state_dict(kept)
        with streams.forget():
            backward(p @ f)
        with streams.retain(last=True):
            backward(p @ r)
        streams.combine()
        assert p.grad is not None
        mask = first.abs() > first.abs().sort(descending=True).values[15]
        torch.testing.assert_close(p.grad, SAGO().combine([f * mask], [r * mask])[0])
        p.grad = None


def test_the_state_of_the_rule_inside_is_kept_too() -> None:
    from amnesis_plugins.combiners.gru import GRU

    torch.manual_seed(0)
    saliency, plain = Saliency(share=1.0, combiner=GRU()), GRU()
    state: list[TensorState] = [{}]
    other: list[TensorState] = [{}]
    for _ in range(4):
        f, r = torch.randn(2, 9)
        out, state = saliency.advance([f], [r], state)
        wanted, other = plain.advance([f], [r], other)
        torch.testing.assert_close(out[0], wanted[0])


@pytest.mark.parametrize("inner", ["sago", {"name": "pcgrad", "scope": "global"}])
def test_a_recipe_names_the_rule_inside(inner: Any) -> None:
    import amnesis

    wrapper = amnesis.create("combiner", "saliency", share=0.2, combiner=inner)
    name = inner if isinstance(inner, str) else inner["name"]
    assert wrapper.combiner.registered_name == name


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_what_is_logged_is_of_the_gradients_before_they_are_masked(scope: str) -> None:
    """Norms and products that probes read are the objective's, whatever trains of them."""
    p = torch.nn.Parameter(torch.zeros(4))
    streams = Streams([("p", p)], Saliency(share=0.5, combiner=PCGrad(scope=scope)))
    f, r = torch.tensor([3.0, 0.1, -4.0, 0.2]), torch.tensor([1.0, 2.0, 2.0, 4.0])
    streams.watch(products=[("forget", "retain")])
    with streams.forget():
        backward(p @ f)
    with streams.retain(last=True):
        backward(p @ r)
    report = streams.combine()
    assert report.forget_norm == pytest.approx(float(f.norm()))
    assert report.retain_norm == pytest.approx(float(r.norm()))
    assert report.products["forget", "retain"]["p"] == pytest.approx(float(f @ r))
    assert p.grad is not None
    assert p.grad[[1, 3]].tolist() == [0.0, 0.0]
