"""What may be claimed of a combiner, before the optimizer's preconditioner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from tests.properties.claims import Claim, for_any
from torch import Tensor

from amnesis.contracts import Combiner, ElementwiseCombiner, ProjectionCombiner
from amnesis.contracts.combiner import Rule, linear

Pair = tuple[list[Tensor], list[Tensor]]  # forget and retain gradients, tensor by tensor

# Far from where squares under- or overflow; zeros are as common as in an embedding's gradient.
ELEMENT = st.one_of(st.just(0.0), st.floats(-100, 100).map(lambda v: v if abs(v) > 1e-3 else 0.0))


@st.composite
def gradients(draw: st.DrawFn) -> Pair:
    """Draw one to three tensors of each stream."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))

    def one(size: int) -> Tensor:
        values = draw(st.lists(ELEMENT, min_size=size, max_size=size))
        return torch.tensor(values, dtype=torch.float64)

    return [one(size) for size in sizes], [one(size) for size in sizes]


def combined(combiner: Combiner, f: Sequence[Tensor], r: Sequence[Tensor]) -> list[Tensor]:
    """Combine, where every parameter has a gradient."""
    return [out for out in combiner.combine(f, r) if out is not None]


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Lay all tensors end to end."""
    return torch.cat([t.reshape(-1) for t in tensors])


def same(left: Sequence[Tensor], right: Sequence[Tensor], tolerance: float = 1e-9) -> None:
    """Hold two lists of tensors to be equal but for rounding."""
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def _never_against(out: Tensor, along: Tensor, other: Tensor) -> None:
    """Hold ``⟨out, along⟩ ≥ 0``, but for the rounding of what cancelled."""
    longest = max(out.norm(), along.norm(), other.norm())
    assert out @ along >= -1e-12 * (1 + longest * along.norm())


@for_any(gradients(), examples=40)
def never_against_r_in_any_element(combiner: Combiner, pair: Pair) -> None:
    """``out_i·r_i ≥ 0``: no diagonal preconditioner can turn the update against retention."""
    for out, r in zip(combined(combiner, *pair), pair[1], strict=True):
        assert (out * r >= 0).all()


@for_any(gradients(), examples=40)
def never_against_r_in_any_tensor(combiner: Combiner, pair: Pair) -> None:
    """``⟨out, r⟩ ≥ 0`` for each parameter tensor."""
    for out, f, r in zip(combined(combiner, *pair), *pair, strict=True):
        _never_against(out, r, f)


@for_any(gradients(), examples=40)
def never_against_r(combiner: Combiner, pair: Pair) -> None:
    """``⟨out, r⟩ ≥ 0`` over all parameters."""
    _never_against(flat(combined(combiner, *pair)), flat(pair[1]), flat(pair[0]))


@for_any(gradients(), examples=40)
def never_against_f(combiner: Combiner, pair: Pair) -> None:
    """``⟨out, f⟩ ≥ 0`` over all parameters: a step always forgets, to first order."""
    _never_against(flat(combined(combiner, *pair)), flat(pair[0]), flat(pair[1]))


@for_any(gradients(), examples=40)
def the_sum_where_nothing_conflicts(combiner: Combiner, pair: Pair) -> None:
    """``γf + αr`` where ``⟨f, r⟩ ≥ 0`` tensor by tensor (and so in total)."""
    assert isinstance(combiner, Rule)
    f = [a if a @ b >= 0 else -a for a, b in zip(*pair, strict=True)]
    expected = [combiner.gamma * a + combiner.alpha * b for a, b in zip(f, pair[1], strict=True)]
    same(combined(combiner, f, pair[1]), expected)


@for_any(st.tuples(gradients(), st.sampled_from([0.125, 1.0, 1024.0])))
def scales_as_the_losses_do(combiner: Combiner, case: tuple[Pair, float]) -> None:
    """Both losses times c, as under a loss scaler, give c times the result."""
    (f, r), c = case
    scaled = combined(combiner, [c * t for t in f], [c * t for t in r])
    same(scaled, [c * out for out in combined(combiner, f, r)], tolerance=1e-7)


@for_any(st.tuples(gradients(), st.sampled_from([0.125, 8.0]), st.sampled_from([0.5, 1024.0])))
def blind_to_the_losses_scale(combiner: Combiner, case: tuple[Pair, float, float]) -> None:
    """Either loss times anything positive gives the same result."""
    (f, r), c, d = case
    same(combined(combiner, [c * t for t in f], [d * t for t in r]), combined(combiner, f, r))


@for_any(gradients())
def order_never_matters(combiner: Combiner, pair: Pair) -> None:
    """Parameters, and elements within one, may be listed in any order."""
    f, r = pair
    backwards = combined(combiner, [t.flip(0) for t in f[::-1]], [t.flip(0) for t in r[::-1]])
    same([t.flip(0) for t in backwards[::-1]], combined(combiner, f, r))


@for_any(gradients())
def cuts_never_matter(combiner: Combiner, pair: Pair) -> None:
    """Tensors may be cut anywhere (sharded, flattened into one): the pieces are the same."""
    f, r = pair
    whole = combined(combiner, [flat(f)], [flat(r)])
    pieces = combined(combiner, list(flat(f)[:, None]), list(flat(r)[:, None]))
    same([flat(pieces)], whole)
    same([flat(combined(combiner, f, r))], whole)


@for_any(gradients())
def a_missing_gradient_is_a_zero(combiner: Combiner, pair: Pair) -> None:
    """``None`` and zeros are the same; where both are missing nothing comes out."""
    f, r = pair
    zeros = [torch.zeros_like(t) for t in f]
    alone = combiner.combine([*f, None], [*[None] * len(f), None])
    assert alone[-1] is None
    same([t for t in alone if t is not None], combined(combiner, f, zeros))
    alone = combiner.combine([None] * len(r), r)
    same([t for t in alone if t is not None], combined(combiner, zeros, r))


@for_any(gradients())
def leaves_its_arguments_alone(combiner: Combiner, pair: Pair) -> None:
    """What it is given is not changed."""
    before = [t.clone() for stream in pair for t in stream]
    combiner.combine(*pair)
    for t, was in zip([t for stream in pair for t in stream], before, strict=True):
        assert torch.equal(t, was)


@for_any(gradients())
def keeps_the_dtype(combiner: Combiner, pair: Pair) -> None:
    """Half precision in, half precision out, as near to the exact result as that can be."""
    f, r = ([t.bfloat16() for t in stream] for stream in pair)
    exact = combined(combiner, [t.double() for t in f], [t.double() for t in r])
    for out, wanted in zip(combined(combiner, f, r), exact, strict=True):
        assert out.dtype == torch.bfloat16
        scale = 1e-3 + 2**-7 * max(t.abs().max().item() for t in [*f, *r, wanted])
        torch.testing.assert_close(out.double(), wanted, rtol=2**-7, atol=scale)


def agrees_with(
    naive: Callable[[Any, list[list[float]], list[list[float]]], Sequence[Sequence[float]]],
) -> Claim:
    """Claim that the result is what plain loops over tensors and elements give."""

    @for_any(gradients(), examples=40)
    def agrees_with_a_naive_loop(combiner: Combiner, pair: Pair) -> None:
        f, r = ([t.tolist() for t in stream] for stream in pair)
        expected = [torch.tensor(v, dtype=torch.float64) for v in naive(combiner, f, r)]
        same(combined(combiner, *pair), expected, tolerance=1e-7)

    return agrees_with_a_naive_loop


def dot(left: list[list[float]], right: list[list[float]]) -> float:
    """Add up products over all tensors' elements."""
    pairs = zip(left, right, strict=True)
    return sum(a * b for u, v in pairs for a, b in zip(u, v, strict=True))


@for_any(gradients())
def rounding_is_no_retain_gradient(combiner: Combiner, pair: Pair) -> None:
    """An r that is but rounding beside f, whatever its signs, changes no more than its length."""
    f, r = pair
    zeros = [torch.zeros_like(t) for t in r]
    # A hundredth of float32's ε, tensor by tensor, since some rules look at each on its own.
    noise = [1e-9 * a.norm() / (1e-300 + b.norm()) * b for a, b in zip(f, r, strict=True)]
    alone = combined(combiner, f, zeros)
    most = 1e-8 * (1 + flat(f).norm())
    for out, expected in zip(combined(combiner, f, noise), alone, strict=True):
        assert (out - expected).abs().max() <= most


def waits_for_no_device(combiner: Combiner) -> None:
    """No value is read on the way: tensors without any will do."""
    f, r = torch.randn(2, 3, 5, device="meta")
    if isinstance(combiner, ElementwiseCombiner):
        assert combiner.combine_tensor(f, r).is_meta
    elif isinstance(combiner, ProjectionCombiner):
        coefficients = combiner.coefficients(torch.ones(2, 2, device="meta").double())
        assert linear(f, r, coefficients).is_meta


def plus(
    a: float, left: list[list[float]], b: float, right: list[list[float]]
) -> list[list[float]]:
    """Return ``a·left + b·right``."""
    pairs = zip(left, right, strict=True)
    return [[a * x + b * y for x, y in zip(u, v, strict=True)] for u, v in pairs]


EVERY_COMBINER: list[Claim] = [
    order_never_matters,
    a_missing_gradient_is_a_zero,
    leaves_its_arguments_alone,
    keeps_the_dtype,
    rounding_is_no_retain_gradient,
]
