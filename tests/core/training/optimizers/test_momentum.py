"""Momentum as a running mean, by itself and under bfloat16 weights."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from amnesis.training.optimizers.bfloat16 import Bfloat16Optimizer
from amnesis.training.optimizers.momentum import Momentum
from amnesis.training.settings import TrainingSettings


@pytest.mark.parametrize("m", [0.0, 0.5, 0.9])
def test_it_descends_along_a_mean_that_starts_at_zero(m: float) -> None:
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = Momentum([p], lr=0.1, momentum=m)
    expected, mean = torch.zeros(5).double(), torch.zeros(5).double()
    for gradient in torch.randn(6, 5, dtype=torch.float64):
        p.grad = gradient.clone()
        optimizer.step()
        mean = m * mean + (1 - m) * gradient
        expected -= 0.1 * mean
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=1e-12)


def test_plain_momentum_at_a_smaller_rate_is_the_same() -> None:
    torch.manual_seed(0)
    p, q = (torch.nn.Parameter(torch.zeros(5, dtype=torch.float64)) for _ in range(2))
    ours = Momentum([p], lr=0.1, momentum=0.9)
    plain = torch.optim.SGD([q], lr=0.01, momentum=0.9)
    for gradient in torch.randn(4, 5, dtype=torch.float64):
        p.grad, q.grad = gradient.clone(), gradient.clone()
        ours.step()
        plain.step()
    torch.testing.assert_close(p.detach(), q.detach(), rtol=1e-12, atol=1e-12)


def test_bfloat16_weights_follow_float32_ones() -> None:
    torch.manual_seed(0)
    start = torch.randn(64).bfloat16()
    narrow, wide = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.float())
    stored = Bfloat16Optimizer(Momentum([narrow], lr=1e-3, momentum=0.9), "master")
    exact = Momentum([wide], lr=1e-3, momentum=0.9)
    for gradient in torch.randn(5, 64).bfloat16():
        narrow.grad, wide.grad = gradient.clone(), gradient.float()
        stored.step()
        exact.step()
    torch.testing.assert_close(stored.full_precision(narrow), wide.detach())


def test_settings_name_it_only_where_there_is_momentum() -> None:
    assert TrainingSettings().own_optimizer() is None
    assert TrainingSettings(optimizer="sgd").own_optimizer() is None
    chosen = cast("Any", TrainingSettings(optimizer="sgd", momentum=0.8).own_optimizer())
    assert chosen == (Momentum, {"lr": 1e-5, "momentum": 0.8})
