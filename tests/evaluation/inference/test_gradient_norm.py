"""Norms of gradients: as autograd has them, and in no more memory than one gradient takes."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from amnesis_evaluation.inference import gradient_norm


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """The size in bytes of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):  # type: ignore[no-untyped-def]
        result = function(*arguments, **(options or {}))
        if isinstance(result, torch.Tensor):
            self.size = max(self.size, result.numel() * result.element_size())
        return result


def test_no_float64_copy_of_a_gradient_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_norm, "BLOCK", 1000)
    gradient = torch.randn(70, 100)
    with Largest() as largest:
        square = gradient_norm._square_of(gradient)
    assert square.dtype == torch.float64
    assert float(square) == pytest.approx(float(gradient.double().square().sum()), rel=1e-14)
    assert largest.size <= gradient.numel() * gradient.element_size()
