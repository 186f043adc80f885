"""A gradient's sum over ranks: its parts, their order, and that it travels while others compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.processes import on_two_ranks
from torch.autograd import backward
from torch.nn import Parameter

import amnesis
from amnesis.distributed import sums
from amnesis.distributed.sums import RankSum
from amnesis.errors import ContractError
from amnesis.training.streams import Streams

SIZES = st.lists(
    st.tuples(st.sampled_from([1, 7, 40, 99, 100, 250]), st.sampled_from(["float32", "bfloat16"])),
    max_size=12,
)


@given(SIZES)
def test_parts_hold_every_parameter_once_and_are_of_one_message_each(sizes: Any) -> None:
    parameters = [Parameter(torch.zeros(n, dtype=getattr(torch, kind))) for n, kind in sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "SMALL", 100)
        patch.setattr(sums, "TOGETHER", 120)
        summed = RankSum(parameters)
    assert [id(p) for p in summed.order] == [id(p) for p in reversed(parameters)]
    for part in summed._parts:
        assert len({p.dtype for p in part}) == 1
        assert len(part) == 1 or all(p.numel() < 100 for p in part)
        assert len(part) == 1 or sum(p.numel() for p in part) <= 120


def _sent(folder: Path, rank: int, step: Any) -> list[str]:
    """Return what a step does, in order: what it computes, and each message that it sends."""
    import torch.distributed as dist

    said: list[str] = []
    all_reduce = dist.all_reduce

    def told(tensor: Any, *arguments: Any, **options: Any) -> Any:
        said.append(f"send {tensor.numel()}")
        return all_reduce(tensor, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", told)
        patch.setattr(sums, "SMALL", 4)
        step(said.append)
    (folder / f"{rank}.txt").write_text("\n".join(said), encoding="utf-8")
    return said


class _Layers:
    """Two layers, of 6 and 4 weights, and a bias of 2 that no loss reads."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.first, self.second = (Parameter(torch.randn(2, n).double()) for n in (3, 2))
        self.unread = Parameter(torch.ones(2).double())
        self.named = {"unread": self.unread, "first": self.first, "second": self.second}

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        return ((x @ self.first.T).tanh() @ self.second).square().sum()


def _step_on_two_ranks(rank: int, folder: Path, combiner: str | None, has_batch: bool) -> None:
    inputs = torch.arange(12.0).double().reshape(2, 2, 3) / 10 + 0.1  # of rank, of stream
    layers = _Layers()
    rule = None if combiner is None else amnesis.create("combiner", combiner)
    streams = Streams(layers.named.items(), rule, RankSum)

    def step(say: Any) -> None:
        for index, name in enumerate(("forget", "retain")):
            say(f"{name} begins")
            if has_batch or rank == 0 or name == "retain":
                with getattr(streams, name)(last=True):
                    backward(layers.loss(inputs[rank, index]))
            say(f"{name} has passed")
            streams.complete(name)
        streams.combine()

    said = _sent(folder, rank, step)
    alone = _Layers()
    gradients = []
    for index in range(2):
        ranks = [0] if index == 0 and not has_batch else [0, 1]
        losses = [alone.loss(inputs[k, index]) for k in ranks]
        of = list(alone.named.values())
        found = torch.autograd.grad(sum(losses), of, allow_unused=True)  # type: ignore[arg-type]
        both = zip(found, of, strict=True)
        gradients.append([torch.zeros_like(p) if g is None else g for g, p in both])
    summed = amnesis.create("combiner", combiner or "sum")
    for got, expected in zip(layers.named.values(), summed.combine(*gradients), strict=True):
        torch.testing.assert_close(got.grad, expected, rtol=1e-12, atol=1e-14)
    if combiner is not None:  # else the streams are one gradient, which the retain stream ends
        of_forget = said[: said.index("retain begins")]
        assert of_forget[-1] == "send 2"  # all of it is on its way
        during = of_forget[1 : of_forget.index("forget has passed")]
        assert during == (["send 4", "send 6"] if has_batch or rank == 0 else [])
    assert said[said.index("retain begins") + 1 :] == [
        "send 4", "send 6", "retain has passed", "send 2",
    ]  # fmt: skip


@pytest.mark.parametrize("combiner", ["sago", "pcgrad", "cone", None])
@pytest.mark.parametrize("has_batch", [True, False])
def test_a_gradient_travels_while_the_next_is_computed(
    combiner: str | None, has_batch: bool, tmp_path: Path
) -> None:
    on_two_ranks(_step_on_two_ranks, tmp_path, combiner, has_batch)
    texts = [(tmp_path / f"{rank}.txt").read_text(encoding="utf-8") for rank in range(2)]
    sent = [[line for line in text.splitlines() if line.startswith("send")] for text in texts]
    assert sent[0] == sent[1]
    streams = 1 if combiner is None else 2
    assert sent[0] == ["send 4", "send 6", "send 2"] * streams


def test_a_second_pass_after_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    p = Parameter(torch.ones(3))
    streams = Streams([("p", p)], amnesis.create("combiner", "sago"), RankSum)
    monkeypatch.setattr(sums, "_sum", lambda tensors: lambda: None)
    with streams.forget(last=True):
        backward(p.sum())
        with pytest.raises(ContractError, match="a second one was made"):
            backward(p.sum())
