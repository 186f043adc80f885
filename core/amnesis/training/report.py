"""What is logged of a step: its two gradients before they were combined, and all that was seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amnesis.contracts.probe import Gradient, Product
from amnesis.contracts.stream import StreamLoss

if TYPE_CHECKING:
    from torch import Tensor

# The risk that a gradient is of, by the stream whose batches it is taken on.
RISKS: dict[str, Gradient] = {"forget": "forget_risk", "retain": "retain_risk"}
# What every step logs, or may: the names of its own values begin so.
STEP_VALUES = (
    "forget/loss",
    "retain/loss",
    "forget/weight/",
    "retain/weight/",
    "gradients/",
    "update/",
)
BLOCK_ELEMENTS = 1 << 16  # of two tensors in float32, half a MiB
Values = dict[str, float]
# The inner products that probes read: each from one that is taken, times a factor.
Available = dict[Product, tuple[Product, float]]


@dataclass
class StepLog:
    """The values of the present step, and of the run its trajectory and notes.

    All who see something of a step put it here: the streams, probes, evaluations along the run.
    ``given_up`` are the beginnings of names that no probe gives values to any more.
    """

    values: Values = field(default_factory=dict)
    trajectory: list[Values] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    given_up: set[str] = field(default_factory=set)

    def begin(self, values: Mapping[str, float]) -> None:
        """Begin a step with its first values, in place of the last step's."""
        self.values = dict(values)

    def add(self, values: Mapping[str, float]) -> None:
        """Add values to the present step.

        Raises:
            TypeError: one of them is not a number.
        """
        self.values.update({name: float(value) for name, value in values.items()})

    def note(self, text: str) -> None:
        """Say something of the run beside its numbers."""
        self.notes.append(text)

    def close(self, step: int, **further: float) -> Values:
        """Add the present step to the trajectory, and return what was logged of it.

        A value that is not finite is left out: it is not defined on this step, or a loss scaler is
        about to skip the step.
        """
        values = {**self.values, **further}
        logged = {name: value for name, value in values.items() if math.isfinite(value)}
        self.trajectory.append({"step": step, **logged})
        return logged


def on_retain_risk(before: float | None, after: float | None) -> list[str]:
    """Return a note where a model lost what it was to keep, as its risk there says.

    That is a rise by more than 2 nats per token: on average, each is a seventh as likely as it was.
    """
    if before is None or after is None or after <= before + 2:
        return []
    return [
        f"the retain risk rose from {before:.2f} to {after:.2f} nats per token: the model lost "
        f"what it was to keep; lower training.learning_rate, or make fewer steps"
    ]


@dataclass(frozen=True, kw_only=True)
class StreamReport:
    """What the two gradients looked like before they were combined.

    ``products`` maps each pair that was asked for to ``{parameter name: inner product}``; the
    rest is ``None`` on steps that were not watched.
    """

    forget_norm: float | None = None
    retain_norm: float | None = None
    cosine: float | None = None
    conflict_share: float | None = None
    zero_forget_share: float | None = None
    products: Mapping[Product, Mapping[str, float]] = field(default_factory=dict)

    def values(self) -> Values:
        """Return what is known, under the names that it is logged by."""
        named = {
            "gradients/forget_norm": self.forget_norm,
            "gradients/retain_norm": self.retain_norm,
            "gradients/cosine": self.cosine,
            "gradients/conflict_share": self.conflict_share,
            "gradients/zero_forget_share": self.zero_forget_share,
        }
        return {name: value for name, value in named.items() if value is not None}


class Tally:
    """Sums over the parameters of one step, kept on their device until the report."""

    def __init__(self) -> None:
        self._grams: list[Tensor] = []
        self._signs: list[Tensor] = []
        self._products: dict[Product, dict[str, Tensor]] = {}

    def add(self, gram: Tensor, signs: Tensor) -> None:
        """Add one parameter's Gram matrix and sign counts."""
        self._grams.append(gram)
        self._signs.append(signs)

    def add_product(self, pair: Product, name: str, value: Tensor) -> None:
        """Add one parameter's inner product."""
        self._products.setdefault(pair, {})[name] = value

    def report(self, asked: Sequence[Product]) -> StreamReport:
        """Return the sums; reading them waits for the device, once."""
        products = {pair: _to_floats(self._products.get(pair, {})) for pair in asked}
        if not self._grams:
            return StreamReport(products=products)
        (ff, fr), (_, rr) = _added(self._grams).tolist()
        conflicts, zeros, elements = _added(self._signs).tolist()
        scale = ff**0.5 * rr**0.5  # their product may underflow
        return StreamReport(
            forget_norm=ff**0.5,
            retain_norm=rr**0.5,
            cosine=fr / scale if scale > 0 else 0.0,
            conflict_share=conflicts / elements,
            zero_forget_share=zeros / elements,
            products=products,
        )


def sign_counts(f: Tensor, r: Tensor) -> Tensor:
    """Count conflicting elements, zeros of f, and all elements, in float64.

    On a CPU a block at a time, which stays in its cache: less than a third of the time.
    """
    import torch

    size = BLOCK_ELEMENTS if f.device.type == "cpu" else max(f.numel(), 1)
    counts = torch.zeros(2, dtype=torch.int64, device=f.device)
    blocks = (torch.split(tensor.reshape(-1), size) for tensor in (f, r))
    for a, b in zip(*blocks, strict=True):
        # The sign of f stands for f, since f·r can underflow.
        counts[0] += a.sign().mul_(b).lt_(0).sum(dtype=torch.int64)
        counts[1] += torch.count_nonzero(a)
    conflicts, nonzero = counts.unbind()
    elements = torch.full_like(nonzero, f.numel())
    return torch.stack([conflicts, elements - nonzero, elements]).double()


def _added(values: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.stack([v.to(values[0].device) for v in values]).sum(0)


def _to_floats(values: Mapping[str, Tensor]) -> dict[str, float]:
    import torch

    if not values:
        return {}
    device = next(iter(values.values())).device
    floats = torch.stack([v.to(device) for v in values.values()]).tolist()
    return dict(zip(values, floats, strict=True))


def at_hand(
    products: Sequence[Product],
    forget: StreamLoss,
    retain: StreamLoss | None,
    *,
    at_theta: bool = True,
) -> Available:
    """Return, for each product that probes read, one that can be taken, and a factor.

    Where a stream's loss is c·R its gradient is c·∇R, so the risk needs no backward pass of its
    own; but not if ``at_theta`` is False, for the forget gradient is then taken elsewhere. A
    product with the retain stream is left out where there is none.
    """
    sources: dict[Gradient, tuple[Gradient, float]] = {}
    streams: dict[Gradient, StreamLoss | None] = {"forget": forget, "retain": retain}
    for stream, loss in streams.items():
        if loss is not None:
            multiple = loss.risk_multiple if at_theta or stream == "retain" else None
            risk = RISKS[stream]
            sources[stream] = stream, 1.0
            sources[risk] = (stream, 1 / multiple) if multiple else (risk, 1.0)
    available: Available = {}
    for left, right in products:
        if left in sources and right in sources:
            (one, a), (other, b) = sources[left], sources[right]
            available[left, right] = (one, other), a * b
    return available


def products_of(available: Available, report: StreamReport) -> dict[Product, dict[str, float]]:
    """Return the products asked for, from those that were had."""
    return {
        pair: {name: factor * value for name, value in report.products[had].items()}
        for pair, (had, factor) in available.items()
    }
