"""Gradient descent along the running mean of gradients."""

from __future__ import annotations

from typing import Any

import torch


class Momentum(torch.optim.SGD):
    """SGD along ``u ← m·u + (1 − m)·g``, a mean that starts at 0.

    That is plain momentum (Polyak 1964) at 1 − m times the rate, so a rate means the same with and
    without it. torch's own dampening starts the mean at the first gradient, which would then count
    1/(1 − m) times as much as any other.
    """

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float = 0.0) -> None:
        """Take torch's parameter groups."""
        super().__init__(
            params, lr, momentum=momentum, dampening=momentum, weight_decay=weight_decay
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make one step."""
        for group in self.param_groups:
            for p in group["params"]:
                if group["momentum"] and p.grad is not None and not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return super().step(closure)
