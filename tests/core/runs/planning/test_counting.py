"""The bytes of tensors without values: what is alive, and what is known of small ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from amnesis.runs.planning.counting import Counting


@pytest.fixture
def counting() -> Iterator[Counting]:
    with FakeTensorMode(), Counting("cpu") as counting:
        yield counting


def test_what_is_alive_is_counted_once_and_no_longer_than_it_lives(counting: Counting) -> None:
    with counting.phase("work"):
        x = torch.empty(1000)
        assert counting.bytes == 4000
        view = x.view(10, 100).T
        y = x * 2
        assert counting.bytes == 8000
        del x
        assert counting.bytes == 8000  # the view holds it
        del view, y
        assert counting.bytes == 0
    assert (counting.phases["work"].start, counting.phases["work"].peak) == (0, 8000)


def test_what_a_backward_pass_will_read_is_alive_until_then(counting: Counting) -> None:
    w = torch.empty(100, 100, requires_grad=True)
    loss = (torch.empty(50, 100) @ w).tanh().sum()
    assert counting.bytes == 40_000 + 2 * 20_000 + 4  # weight, input, tanh and the sum
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    del loss
    assert counting.bytes == 2 * 40_000  # weight and gradient


def test_a_part_of_a_tensor_counts_as_that(counting: Counting) -> None:
    x = torch.empty(1000)
    counting.divide([x], 8)
    assert counting.bytes == 500
    del x
    assert counting.bytes == 0


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5))
def test_a_mask_s_places_are_known(rows: list[list[bool]]) -> None:
    mask = torch.tensor(rows)
    with FakeTensorMode(), Counting("cpu") as counting:
        fake = counting.fake(mask)
        hidden = torch.empty(*mask.shape, 3)
        count = int(fake.sum())
        shapes = hidden[fake].shape, fake.nonzero().shape, hidden[..., 0].masked_select(fake).shape
        empty = bool((~fake).all())
    assert count == int(mask.sum())
    assert shapes == ((count, 3), (count, 2), (count,))
    assert empty == (count == 0)


def test_of_what_is_unknown_a_number_is_1_and_of_what_is_written_over_too(
    counting: Counting,
) -> None:
    unknown = torch.empty(3)
    known = torch.arange(3.0)
    assert (unknown.sum().item(), known.sum().item(), bool(unknown.isfinite().all())) == (
        1,
        3,
        True,
    )
    assert torch.equal(known, torch.arange(3.0))
    assert not torch.equal(known, known + 1)
    known += unknown
    assert known.sum().item() == 1


def test_an_operation_whose_size_nobody_knows_is_refused(counting: Counting) -> None:
    def places() -> Any:
        return torch.empty(3).nonzero()

    with pytest.raises(RuntimeError):
        places()
