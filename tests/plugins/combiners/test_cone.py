"""CONE: the inequalities of its cone, its invariances and limits, its memory along a run."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from tests.core.training.test_robust import Cut
from tests.properties.claims import hold, sampled
from tests.properties.combiners import (
    EVERY_COMBINER,
    Pair,
    agrees_with,
    blind_to_the_losses_scale,
    combined,
    flat,
    gradients,
    same,
    waits_for_no_device,
)
from torch import Tensor
from torch.autograd import backward

import amnesis
from amnesis.contracts import TensorState
from amnesis.errors import Interrupted, RecipeError
from amnesis.models.trainable import LoraSettings, with_lora
from amnesis.training.settings import TrainingSettings
from amnesis.training.streams import Streams
from amnesis.training.unlearner import Unlearner
from amnesis_plugins.combiners.cone import CONE

Lists = list[list[float]]


def naive_step(
    cone: CONE, f: Lists, r: Lists, moments: Lists, steps: int
) -> tuple[Lists, Lists, int]:
    """Make one step in plain loops: the result, the moments without their correction, and t."""
    elements = [(a, b) for u, v in zip(f, r, strict=True) for a, b in zip(u, v, strict=True)]
    ff, rr = sum(a * a for a, _ in elements), sum(b * b for _, b in elements)
    if ff > 0 and rr <= cone.threshold**2 * ff:
        length = cone.c * math.sqrt(len(elements) / ff)
        return [[length * a for a in u] for u in f], moments, steps
    beta = cone.beta
    moments = [
        [beta * m + (1 - beta) * b * b for m, b in zip(row, v, strict=True)]
        for row, v in zip(moments, r, strict=True)
    ]
    steps += 1
    metric: Lists = []
    for row in moments:
        root = [math.sqrt(m / (1 - beta**steps)) for m in row]
        rms = math.sqrt(sum(x * x for x in root) / len(root))
        metric.append([1 / (x + cone.damping * rms) if rms else 0.0 for x in root])
    flat_d = [d for row in metric for d in row]
    norm_f = math.sqrt(sum(d * a * a for d, (a, _) in zip(flat_d, elements, strict=True)))
    norm_r = math.sqrt(sum(d * b * b for d, (_, b) in zip(flat_d, elements, strict=True)))
    k = cone.c * norm_r / norm_f if norm_f else 0.0
    out = [
        [d * (b + k * a) for d, a, b in zip(row, u, v, strict=True)]
        for row, u, v in zip(metric, f, r, strict=True)
    ]
    return out, moments, steps


def naive(cone: CONE, f: Lists, r: Lists) -> Lists:
    return naive_step(cone, f, r, [[0.0] * len(v) for v in r], 0)[0]


SUBJECTS = [CONE(), CONE(c=0.5, damping=1.0, beta=0.9), CONE(c=0.0), CONE(beta=0.0)]
CLAIMS = [
    *EVERY_COMBINER,
    waits_for_no_device,
    agrees_with(naive),
    blind_to_the_losses_scale,
]

test_claims = hold(CLAIMS, SUBJECTS)


def run_of(pairs: Sequence[Pair], cone: CONE) -> tuple[list[list[Tensor]], list[TensorState]]:
    """Combine step after step; return each step's result and the last state."""
    state: Sequence[TensorState] = [{}] * len(pairs[0][0])
    outs = []
    for f, r in pairs:
        out, state = cone.advance(f, r, state)
        outs.append([t for t in out if t is not None])
    return outs, list(state)


@st.composite
def runs(draw: st.DrawFn) -> list[Pair]:
    """Draw a few steps' gradients of the same shapes."""
    first = draw(gradients())
    seed, steps = draw(st.integers(0, 2**16)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(seed)

    def drawn(stream: list[Tensor]) -> list[Tensor]:
        return [torch.randn(t.shape, dtype=t.dtype, generator=generator) for t in stream]

    return [first, *((drawn(first[0]), drawn(first[1])) for _ in range(steps - 1))]


def metric_of(cone: CONE, state: Sequence[TensorState]) -> Tensor:
    moments = [s["moment"] for s in state]
    return flat([1 / cone.divisor(m, m.mean()) for m in moments])


@sampled(runs(), st.sampled_from([CONE(), CONE(c=0.3, beta=0.5), CONE(c=0.99, damping=0.01)]))
def test_the_two_inequalities_of_the_cone(pairs: list[Pair], cone: CONE) -> None:
    outs, state = run_of(pairs, cone)
    f, r = (flat(stream) for stream in pairs[-1])
    if r.norm() <= cone.threshold * f.norm() or "moment" not in state[0]:
        return
    metric, out = metric_of(cone, state), flat(outs[-1])
    square = (metric * r * r).sum()
    assert out @ r >= (1 - cone.c) * square * (1 - 1e-9)
    direction = torch.where(metric > 0, out / metric, 0.0)  # r + k·f
    length = (metric * direction**2).sum().sqrt() * square.sqrt()
    assert (metric * direction * r).sum() >= math.sqrt(1 - cone.c**2) * length * (1 - 1e-9)


@sampled(runs())
def test_several_steps_equal_a_naive_loop(pairs: list[Pair]) -> None:
    cone = CONE(beta=0.7)
    outs, _ = run_of(pairs, cone)
    moments: Lists = [[0.0] * t.numel() for t in pairs[0][1]]
    steps = 0
    for (f, r), out in zip(pairs, outs, strict=True):
        lists = [t.tolist() for t in f], [t.tolist() for t in r]
        expected, moments, steps = naive_step(cone, *lists, moments, steps)
        same(out, [torch.tensor(row, dtype=torch.float64) for row in expected], tolerance=1e-7)


@sampled(gradients())
def test_limits(pair: Pair) -> None:
    _, r = pair
    zeros = [torch.zeros_like(t) for t in r]
    alone = combined(CONE(), zeros, r)
    damped = [t / (t.abs() + 0.1 * t.square().mean().sqrt()).clamp(min=1e-300) for t in r]
    same(alone, damped)  # without f: Adam's first step, damped relative to the tensor
    same(combined(CONE(c=0.0), pair[0], r), alone if any(t.any() for t in r) else zeros)
    same(combined(CONE(), r, r), [1.9 * t for t in alone] if any(t.any() for t in r) else zeros)
    same(combined(CONE(), zeros, zeros), zeros)


def test_an_untouched_tensor_stays_and_an_untouched_element_is_bounded() -> None:
    f = [torch.tensor([3.0, -4.0]), torch.tensor([1.0, 1e4])]
    r = [torch.zeros(2), torch.tensor([2.0, 0.0])]
    still, moved = combined(CONE(c=0.9), f, r)
    assert still.tolist() == [0.0, 0.0]
    rms = math.sqrt(4.0 / 2)
    k_f = moved * (torch.tensor([2.0, 0.0]) + 0.1 * rms) - r[1]
    assert k_f[1] / f[1][1] == pytest.approx(float(k_f[0] / f[1][0]), rel=1e-4)
    assert moved.isfinite().all()


def test_a_step_without_a_retain_gradient_follows_f_and_is_not_remembered() -> None:
    f = [torch.tensor([3.0, -4.0], dtype=torch.float64)]
    quiet = [torch.tensor([1e-9, 0.0], dtype=torch.float64)]
    loud = [torch.tensor([1.0, 2.0], dtype=torch.float64)]
    outs, state = run_of([(f, quiet), (f, loud)], CONE())
    same(outs[0], [0.9 * math.sqrt(2) / 5 * f[0]])
    same(outs[1:], [combined(CONE(), f, loud)])  # type: ignore[arg-type, list-item]
    assert int(state[0]["moment steps"]) == 1


def stepped(cone: Any, steps: int, resumed_at: int | None = None) -> list[Tensor]:
    torch.manual_seed(1)
    p = torch.nn.Parameter(torch.zeros(7, dtype=torch.float64))
    q = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    streams = Streams([("p", p), ("q", q)], cone)
    seen = []
    for step in range(steps):
        f, r = torch.randn(2, 7, dtype=torch.float64)
        g = torch.randn(3, dtype=torch.float64)
        if step == resumed_at:
            state = {name: kept.clone() for name, kept in streams.state_dict().items()}
            streams = Streams([("p", p), ("q", q)], cone)
            streams.load_state_dict(state)
        streams.watch(statistics=step % 2 == 0)  # what is looked at changes nothing
        with streams.forget():
            backward(p @ f + q.sum())
        with streams.retain(last=True):
            backward(p @ r + q @ g)
        streams.combine()
        assert p.grad is not None
        assert q.grad is not None
        seen.append(torch.cat([p.grad, q.grad]).clone())
        p.grad = q.grad = None
    return seen


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_streams_keep_the_state_and_a_resumed_run_goes_on(scope: Any) -> None:
    cone = CONE(scope=scope)
    whole = stepped(cone, 6)
    same(stepped(cone, 6, resumed_at=3), whole, tolerance=0)

    torch.manual_seed(1)
    state: Sequence[TensorState] = [{}, {}]
    for expected in whole:
        f, r = torch.randn(2, 7, dtype=torch.float64)
        g = torch.randn(3, dtype=torch.float64)
        out, state = cone.advance([f, torch.ones(3).double()], [r, g], state)
        same([torch.cat([t for t in out if t is not None])], [expected], tolerance=1e-12)


def test_the_moment_of_bfloat16_gradients_is_in_float32() -> None:
    f, r = torch.randn(2, 64).bfloat16()
    (out,), (state,) = CONE().advance([f], [r], [{}])
    assert out is not None
    assert out.dtype == torch.bfloat16
    assert state["moment"].dtype == torch.float32
    exact = combined(CONE(), [f.double()], [r.double()])[0]
    torch.testing.assert_close(out.double(), exact, rtol=2**-6, atol=2**-7)


def test_a_step_that_overflows_leaves_the_moment_alone() -> None:
    p = torch.nn.Parameter(torch.zeros(2))
    streams = Streams([("p", p)], CONE(), scale=lambda: 8.0)
    for r in ([1.0, 2.0], [float("inf"), 1.0]):
        with streams.forget():
            backward(8 * (p @ torch.tensor([1.0, -1.0])))
        with streams.retain(last=True):
            backward(8 * (p @ torch.tensor(r)))
        streams.combine()
        finite = p.grad is not None and bool(p.grad.isfinite().all())
        assert finite == all(map(math.isfinite, r))
        p.grad = None
    state = streams.state_dict()
    same([state["moment of p"]], [torch.tensor([1.0, 4.0])])
    assert int(state["moment steps of p"]) == 1


def test_training_suits_a_combiner_that_divides_already() -> None:
    suited = TrainingSettings().suited_to(CONE())
    assert (suited.optimizer, suited.momentum, suited.max_grad_norm) == ("sgd", 0.9, 0.0)
    chosen = TrainingSettings(momentum=0.5, max_grad_norm=2.0).suited_to(CONE())
    assert (chosen.optimizer, chosen.momentum, chosen.max_grad_norm) == ("sgd", 0.5, 2.0)
    sago = amnesis.create("combiner", "sago")
    assert TrainingSettings().suited_to(sago) == TrainingSettings()
    wrapped = amnesis.create("combiner", "saliency", combiner=CONE())
    assert TrainingSettings().suited_to(wrapped).optimizer == "sgd"
    with pytest.raises(RecipeError, match=r"training\.momentum is sgd's"):
        TrainingSettings(momentum=0.9).suited_to(sago)
    with pytest.raises(RecipeError, match=r"training\.optimizer: cone divides by a scale"):
        TrainingSettings(optimizer="adamw").suited_to(amnesis.create("combiner", "cone"))


@pytest.mark.parametrize("kind", ["whole", "lora", "bfloat16"])
def test_a_resumed_run_is_the_whole_run_to_the_bit(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path, kind: str
) -> None:
    if kind == "lora":
        tiny_llama = with_lora(tiny_llama, LoraSettings(r=2))
    elif kind == "bfloat16":
        tiny_llama = tiny_llama.bfloat16()
    training = {"steps": 6, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3}

    def run(model: Any, folder: str, *callbacks: Any) -> Unlearner:
        return Unlearner(
            model,
            tiny_tokenizer,
            "npo",
            "kl",
            "cone",
            training={**training, "save_every": 2},
            output=tmp_path / folder,
            callbacks=callbacks,
            device="cpu",
        )

    whole, cut, resumed = (copy.deepcopy(tiny_llama) for _ in range(3))
    rows = qa_rows[:4], qa_rows[4:]
    run(whole, "whole").fit(*rows)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        run(cut, "cut", Cut()).fit(*rows)
    assert run(resumed, "cut").fit(*rows, resume=True).steps == 6
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_range_test_begins_where_steps_are_as_long_as_the_rate(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    """As with AdamW; plain gradient descent begins a thousand times higher."""
    training = {"steps": 8, "batch_size": 4, "learning_rate": "auto"}
    run = Unlearner(
        tiny_llama, tiny_tokenizer, "ga", "nll", "cone", training=training, device="cpu"
    )
    curve = run.find_learning_rate(qa_rows[:4], qa_rows[4:]).curve
    assert curve[1].rate == pytest.approx(1e-7)
