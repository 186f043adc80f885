"""The definition itself: full gradients of losses written out, one backward per example."""

from __future__ import annotations

from typing import Any

import torch

from amnesis.data.batches import Batch

Gradient = dict[str, torch.Tensor]


def label_logps(model: Any, batch: Batch) -> torch.Tensor:
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    logps: torch.Tensor = output.logits[:, :-1].log_softmax(-1)
    targets = batch.input_ids[:, 1:]
    return logps.gather(-1, targets[..., None]).squeeze(-1) * batch.mask


def gradient(model: Any, value: torch.Tensor, retain_graph: bool = True) -> Gradient:
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(
        value, list(named.values()), retain_graph=retain_graph, allow_unused=True
    )
    return {
        n: torch.zeros_like(p) if g is None else g
        for (n, p), g in zip(named.items(), found, strict=True)
    }


def risk_gradient(model: Any, batches: list[Batch]) -> Gradient:
    tokens = sum(int(b.mask.sum()) for b in batches)
    total: Gradient = {}
    for batch in batches:
        share = -label_logps(model, batch).sum() / tokens
        for name, g in gradient(model, share).items():
            total[name] = total.get(name, 0) + g
    return total


def product(left: Gradient, right: Gradient) -> float:
    return sum(float((left[n] * right[n]).sum()) for n in left)


def product_by(left: Gradient, right: Gradient, layers: dict[str, str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for n in left:
        found[layers[n]] = found.get(layers[n], 0.0) + float((left[n] * right[n]).sum())
    return found
