"""Updates of bfloat16 weights: what each way keeps of them, that it is logged, and resumed."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from transformers.trainer_callback import TrainerCallback

from amnesis.training.optimizers import bfloat16
from amnesis.training.optimizers.bfloat16 import NOTES, Bfloat16Optimizer, joined, rounded, split
from amnesis.training.report import StepLog
from amnesis.training.unlearner import FitResult, Unlearner

WAYS = ("master", "stochastic", "plain")
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def float32(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


@given(st.lists(finite, min_size=1, max_size=50))
def test_split_float32_are_joined_to_the_bit_and_their_upper_half_is_the_nearest(
    values: list[float],
) -> None:
    wide = float32(values)
    upper, lower = split(wide)
    assert torch.equal(joined(upper, lower).view(torch.int32), wide.view(torch.int32))
    nearest = wide.bfloat16()
    tie = (wide.view(torch.int32) & 0xFFFF) == 0x8000
    assert torch.equal(upper[~tie], nearest[~tie])
    assert torch.equal((upper.double() - wide)[tie].abs(), (nearest.double() - wide)[tie].abs())


@given(st.lists(finite.filter(lambda x: abs(x) < 1e38), min_size=1, max_size=50), st.integers(0, 9))
def test_rounded_at_random_is_a_neighbour_and_in_the_mean_the_number(
    values: list[float], seed: int
) -> None:
    wide = float32(values)
    times = 4096
    many = rounded(wide.repeat(times, 1), torch.Generator().manual_seed(seed))
    bits = wide.view(torch.int32) & -0x10000
    toward_0, away = (b.view(torch.float32).double() for b in (bits, bits + 0x10000))
    assert bool(((many == toward_0) | (many == away)).all())
    exact = toward_0 == wide
    assert bool((many[:, exact] == wide[exact]).all())
    step = (away - toward_0).abs()
    gap = (many.double().mean(0) - wide).abs()
    assert bool((gap <= 6 * step / 2 / times**0.5).all())


def test_a_number_below_half_the_spacing_is_lost_to_nearest_alone() -> None:
    weights = torch.full((100_000,), 0.02).bfloat16()
    moved = weights.float() + 1e-5
    assert torch.equal(moved.bfloat16(), weights)
    upper, lower = split(moved)
    assert torch.equal(upper, weights)
    assert torch.equal(joined(upper, lower), moved)
    noise = torch.Generator().manual_seed(0)
    mean = (rounded(moved, noise).double() - weights.double()).mean()
    assert mean.item() == pytest.approx(1e-5, rel=0.05)


def optimizers(name: str, parameters: Any) -> torch.optim.Optimizer:
    groups = [
        {"params": parameters[:2], "weight_decay": 0.1},
        {"params": parameters[2:], "weight_decay": 0.0},
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=1e-3)
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.8, 0.9))


def parameters() -> list[torch.nn.Parameter]:
    torch.manual_seed(3)
    shapes = [(5, 7), (40,), (3, 4), ()]
    made = [torch.nn.Parameter(torch.randn(shape).bfloat16()) for shape in shapes]
    made.insert(2, torch.nn.Parameter(torch.randn(6)))  # in float32 among them
    return made


def numbered(inner: torch.optim.Optimizer, way: Any, seed: int) -> Bfloat16Optimizer:
    """Return an optimizer that is told the step's number by :func:`stepped`."""
    told: list[Any] = []
    optimizer = Bfloat16Optimizer(inner, way, seed=seed, update=lambda: told[0].number)
    told.append(optimizer)
    return optimizer


def stepped(
    made: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: int, first: int = 0
) -> None:
    """Make steps along gradients that depend on the step alone, some elements and tensors none."""
    for step in range(first, steps):
        optimizer.number = step  # type: ignore[attr-defined]  # read by numbered()
        torch.manual_seed(step)
        for index, p in enumerate(made):
            gradient = torch.randn(p.shape).bfloat16().to(p.dtype)
            p.grad = None if (index, step) == (0, 1) else torch.where(gradient > 1.5, 0, gradient)
        optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("bucket", [1, 45, 1 << 25])
def test_master_weights_are_those_of_a_run_in_float32_to_the_bit(
    name: str, bucket: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bfloat16, "BUCKET_ELEMENTS", bucket)
    ours, theirs = parameters(), [torch.nn.Parameter(p.detach().float()) for p in parameters()]
    optimizer = Bfloat16Optimizer(optimizers(name, ours), "master")
    stepped(ours, optimizer, 5)
    stepped(theirs, optimizers(name, theirs), 5)
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(optimizer.full_precision(p), q)
        torch.testing.assert_close(p, q.to(p.dtype), rtol=2**-8, atol=0)
        assert p.dtype == (torch.float32 if p.shape == (6,) else torch.bfloat16)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_plain_is_torch_s_own_step_and_what_it_leaves_is_counted(name: str) -> None:
    ours, theirs = parameters(), parameters()
    log = StepLog()
    rate = 3e-3
    optimizer = Bfloat16Optimizer(optimizers(name, ours), "plain", log=log, logged=lambda: True)
    own = optimizers(name, theirs)
    for group in (*optimizer.param_groups, *own.param_groups):
        group["lr"] = rate
    stepped(ours, optimizer, 4)
    stepped(theirs, own, 3)
    before = [p.detach().clone() for p in theirs]
    stepped(theirs, own, 4, first=3)
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
    pairs = [(p, b) for p, b in zip(theirs, before, strict=True) if p.dtype is torch.bfloat16]
    moved = torch.cat([torch.as_tensor(p.grad).ne(0).reshape(-1) for p, _ in pairs])
    same = torch.cat([p.eq(b).reshape(-1) for p, b in pairs])
    elements, unchanged = int(moved.sum()), int((moved & same).sum())
    assert 0 < unchanged < elements
    assert log.values == {"update/unchanged_share": pytest.approx(unchanged / elements)}
    assert log.notes == [NOTES["plain"]]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_stochastic_steps_are_in_the_mean_those_of_float32(name: str) -> None:
    theirs = [torch.nn.Parameter(p.detach().float()) for p in parameters()]
    stepped(theirs, optimizers(name, theirs), 3)
    mean = [torch.zeros(p.shape).double() for p in theirs]
    times = 200
    for seed in range(times):
        ours = parameters()
        stepped(ours, numbered(optimizers(name, ours), "stochastic", seed), 3)
        for total, p in zip(mean, ours, strict=True):
            total += p.detach().double() / times
    for total, q, start in zip(mean, theirs, parameters(), strict=True):
        spacing = torch.maximum(start.detach().abs(), q.detach().abs()).double() * 2**-7
        # Three roundings of at most half a spacing's deviation each, and those of the moments.
        assert bool(((total - q).abs() <= 5 * 3**0.5 * spacing / 2 / times**0.5 + 1e-7).all())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_state_that_was_saved_goes_on_to_the_bit(way: Any, name: str) -> None:
    whole = parameters()
    stepped(whole, numbered(optimizers(name, whole), way, 7), 5)
    cut = parameters()
    first = numbered(optimizers(name, cut), way, 7)
    stepped(cut, first, 3)
    saved = copy.deepcopy(first.state_dict())
    again = [torch.nn.Parameter(p.detach().clone()) for p in cut]
    # What a checkpoint was written by is gone on with, whatever this machine would choose.
    second = numbered(optimizers(name, again), "plain", 7)
    second.load_state_dict(saved)
    stepped(again, second, 5, first=3)
    for p, q in zip(whole, again, strict=True):
        assert torch.equal(p, q)


@pytest.fixture
def one_rank() -> Iterator[Any]:
    """A process group of this process alone."""
    from torch.distributed.device_mesh import init_device_mesh

    store = dist.HashStore()  # type: ignore[attr-defined]  # torch documents it
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("way", WAYS)
def test_shards_are_updated_as_whole_weights_are(way: Any, one_rank: Any) -> None:
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    def sharded(t: torch.Tensor) -> DTensor:
        return distribute_tensor(t.detach(), one_rank, [Shard(0)])

    whole = [p for p in parameters() if p.ndim]
    shards = [torch.nn.Parameter(sharded(p)) for p in parameters() if p.ndim]
    logs = StepLog(), StepLog()
    for made, log in zip((whole, shards), logs, strict=True):
        optimizer = Bfloat16Optimizer(optimizers("adamw", made), way, log=log, logged=lambda: True)
        for step in range(3):
            torch.manual_seed(step)
            for p in made:
                gradient = torch.randn(p.shape).to(p.dtype)
                p.grad = sharded(gradient) if made is shards else gradient
            optimizer.step()
    for p, q in zip(whole, shards, strict=True):
        assert isinstance(q.data, DTensor)
        assert torch.equal(p, q.data.to_local())
        kept = optimizer.state[q]
        assert all(isinstance(v, DTensor) for name, v in kept.items() if name != "step")
    assert logs[0].values == logs[1].values


class KeepWeights(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Keeps the weights after each step in full precision."""

    def on_step_end(self, *_: Any, optimizer: Any = None, model: Any = None, **__: Any) -> None:
        inner = optimizer.optimizer
        in_full = getattr(inner, "full_precision", lambda p: p)
        self.weights = flat(in_full(p) for p in model.parameters())


def flat(tensors: Any) -> torch.Tensor:
    return torch.cat([t.detach().double().reshape(-1) for t in tensors])


def fit(
    model: Any, tokenizer: Any, rows: Any, **options: Any
) -> tuple[torch.Tensor, torch.Tensor, FitResult]:
    """Return the update of two steps at 1e-5 in full precision, as stored, and the result."""
    training = {"steps": 2, "batch_size": 4, "schedule": "constant", **options.pop("training", {})}
    before, keep = flat(model.parameters()), KeepWeights()
    result = Unlearner(
        model,
        tokenizer,
        options.pop("objective", "ga"),
        "nll",
        training=training,
        device="cpu",
        callbacks=[keep],
        **options,
    ).fit(rows[:4], rows[4:], resume="output" in options)
    return keep.weights - before, flat(model.parameters()) - before, result


@pytest.fixture
def bfloat16_llama(tiny_llama: Any) -> Any:
    """The tiny Llama in bfloat16, of weights as large as those of models on the hub."""
    with torch.no_grad():
        for p in tiny_llama.parameters():
            if p.ndim > 1:
                p.mul_(0.2)
    return tiny_llama.bfloat16()


def test_two_steps_at_1e_5_are_those_of_a_run_in_float32(
    bfloat16_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    """Master weights in each run, stochastic rounding in expectation; plain loses most of it."""

    def update(dtype: torch.dtype, **options: Any) -> tuple[torch.Tensor, ...]:
        model = copy.deepcopy(bfloat16_llama).to(dtype)
        return fit(model, tiny_tokenizer, qa_rows, **options)[:2]

    exact, _ = update(torch.float32)
    master, as_saved = update(torch.bfloat16)  # the default
    assert torch.cosine_similarity(exact, master, 0) > 0.99
    assert master.norm() == pytest.approx(exact.norm().item(), rel=0.01)
    assert torch.cosine_similarity(exact, as_saved, 0) < 0.9  # which rounding to bfloat16 costs

    times = 8
    draws = torch.stack(
        [
            update(torch.bfloat16, seed=seed, training={"bfloat16_weights": "stochastic"})[1]
            for seed in range(times)
        ]
    )
    # Norms are 1: they move by 2⁻⁸ once in some hundred draws, too seldom for a mean of a few.
    matrices = flat(torch.full_like(p, p.ndim > 1) for p in bfloat16_llama.parameters()).bool()
    draws, matrices_exact = draws[:, matrices], exact[matrices]
    # Products of different draws alone: the noise of rounding has no part in their mean.
    gram = draws @ draws.T
    norm = ((gram.sum() - gram.trace()) / (times * (times - 1))).sqrt()
    cosine = (draws.mean(0) @ matrices_exact) / (matrices_exact.norm() * norm)
    assert cosine > 0.99
    assert norm == pytest.approx(matrices_exact.norm().item(), rel=0.01)

    plain, _ = update(torch.bfloat16, training={"bfloat16_weights": "plain"})
    assert torch.cosine_similarity(exact, plain, 0) < 0.5


@pytest.mark.parametrize("way", WAYS)
def test_a_run_says_how_its_weights_are_updated_and_what_is_left_as_it_was(
    bfloat16_llama: Any, tiny_tokenizer: Any, qa_rows: Any, way: str
) -> None:
    training = {"steps": 5, "log_every": 2, "bfloat16_weights": way}
    *_, result = fit(bfloat16_llama, tiny_tokenizer, qa_rows, training=training)
    assert result.notes == [NOTES[way]]
    assert [step["step"] for step in result.trajectory] == [1, 2, 4, 5]
    shares = [step["update/unchanged_share"] for step in result.trajectory]
    low, high = {"master": (0, 0.01), "stochastic": (0.5, 0.9), "plain": (0.7, 0.95)}[way]
    assert all(low <= share <= high for share in shares)


@pytest.mark.parametrize("way", ["master", "stochastic"])
def test_a_run_that_is_resumed_ends_as_if_it_had_not_been_cut_off(
    bfloat16_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path, way: str
) -> None:
    training = {"steps": 4, "save_every": 2, "bfloat16_weights": way, "micro_batch_size": 2}
    ends = []
    for _ in range(2):
        model = copy.deepcopy(bfloat16_llama)
        full, stored, result = fit(
            model, tiny_tokenizer, qa_rows, objective="npo", training=training, output=tmp_path
        )
        ends.append((full, stored, json.dumps([result.trajectory, result.notes])))
        shutil.rmtree(tmp_path / "00000004")
    for one, two in zip(*ends, strict=True):
        assert one == two if isinstance(one, str) else torch.equal(one, two)


def test_weights_of_other_types_are_not_concerned(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    class Look(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
        def on_step_end(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
            kinds.append(type(optimizer.optimizer))

    kinds: list[type] = []
    for dtype, way in ((torch.float32, "auto"), (torch.float64, "stochastic")):
        result = Unlearner(
            copy.deepcopy(tiny_llama).to(dtype),
            tiny_tokenizer,
            "ga",
            training={"steps": 1, "bfloat16_weights": way},
            device="cpu",
            callbacks=[Look()],
        ).fit(qa_rows)
        assert result.notes == []
        assert "update/unchanged_share" not in result.trajectory[0]
    assert kinds == [torch.optim.AdamW] * 2


def test_an_adapter_in_float32_over_a_base_in_bfloat16_is_not_concerned(
    bfloat16_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> None:
    from amnesis.models.trainable import LoraSettings, with_lora

    model = with_lora(bfloat16_llama, LoraSettings(r=2))
    *_, result = fit(model, tiny_tokenizer, qa_rows)
    assert result.notes == []
    assert "update/unchanged_share" not in result.trajectory[0]


@pytest.mark.parametrize(
    ("memory", "way"), [(None, "master"), (1 << 40, "master"), (1 << 18, "stochastic")]
)
def test_the_way_depends_on_the_memory_where_none_is_named(
    bfloat16_llama: Any,
    tiny_tokenizer: Any,
    qa_rows: Any,
    memory: int | None,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bfloat16, "memory_of", lambda device: memory)
    *_, result = fit(bfloat16_llama, tiny_tokenizer, qa_rows, training={"steps": 1})
    assert result.notes == [NOTES[way]]
