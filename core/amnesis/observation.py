"""What a step is observed by: which inner products can be had, and how a report is named."""

from __future__ import annotations

from collections.abc import Sequence

from amnesis.contracts.probe import Product
from amnesis.loss import StreamLoss
from amnesis.stream_report import StreamReport

Values = dict[str, float]
Available = dict[Product, tuple[Product, float]]


def at_hand(asked: Sequence[Product], forget: StreamLoss, retain: StreamLoss | None) -> Available:
    """Map each product asked for to one that can be had, and a factor.

    Where a stream's loss is c·R its gradient is c·∇R, so the risk needs no backward of its own.
    """
    streams = {loss.name: loss for loss in (forget, retain) if loss is not None}
    available: Available = {}
    for pair in asked:
        factor, names = 1.0, []
        for gradient in pair:
            stream, _, is_risk = gradient.partition("_")
            if stream not in streams:
                break
            multiple = streams[stream].risk_multiple if is_risk else None
            factor /= multiple or 1.0
            names.append(stream if multiple else gradient)
        else:
            available[pair] = ((names[0], names[1]), factor)  # type: ignore[assignment]
    return available


def products_of(available: Available, report: StreamReport) -> dict[Product, dict[str, float]]:
    """Give the products asked for, from those that were had."""
    return {
        pair: {name: factor * value for name, value in report.products[had].items()}
        for pair, (had, factor) in available.items()
    }


def described(report: StreamReport) -> Values:
    """Give what a report says, under the names that it is logged by."""
    named = {
        "gradients/forget_norm": report.forget_norm,
        "gradients/retain_norm": report.retain_norm,
        "gradients/cosine": report.cosine,
        "gradients/conflict_share": report.conflict_share,
        "gradients/zero_forget_share": report.zero_forget_share,
    }
    return {name: value for name, value in named.items() if value is not None}
