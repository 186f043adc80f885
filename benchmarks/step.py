"""What two streams cost: a step with each combiner against a step with summed gradients.

    python benchmarks/step.py [--rounds 25] [--case parameters] [--only sago pcgrad]

The yardstick is two forward and backward passes whose gradients add up in ``p.grad``: what any
trainer does that sees one loss. Beside ours stands the field's way: gradients cloned, combined
through boolean masks or flat copies, copied back. No optimizer runs. Peaks are weights, gradients
and activations together. The bars are for the lower quartile of the ratios.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from measuring import Run, arguments, new_llama, peak_bytes, quartiles, rounds_of, table
from torch import Tensor
from torch.autograd import backward
from torch.nn.functional import cross_entropy

import amnesis
from amnesis import Streams

COMBINERS: dict[str, dict[str, Any]] = {
    "sum": {"name": "sum"},
    "sago": {"name": "sago"},
    "sago, keep_retain": {"name": "sago", "keep_retain": True},
    "pcgrad": {"name": "pcgrad"},
    "pcgrad, global": {"name": "pcgrad", "scope": "global"},
    "blur": {"name": "blur"},
    "ngdiff": {"name": "ngdiff"},
    "gru": {"name": "gru"},
}


@dataclass(frozen=True)
class Case:
    """A model and a batch: which of the two dominates is what the cases differ in."""

    hidden: int
    layers: int
    vocabulary: int
    batch: int
    tokens: int
    bars: dict[str, float]  # lower quartile of the time's ratio


CASES = {
    "activations": Case(192, 4, 2048, 8, 192, {"sago": 1.10, "pcgrad": 1.05}),
    "parameters": Case(512, 4, 8192, 2, 16, {"sago": 1.7, "pcgrad": 1.25}),
}
PEAK_BAR = 1.4


class Bench:
    """One case's model and batches, and the ways to make a step of them."""

    def __init__(self, case: Case, device: str) -> None:
        self.model = new_llama(case.hidden, case.layers, case.vocabulary, device)
        self.parameters = list(self.model.parameters())
        shape = (2, case.batch, case.tokens)
        self.forget, self.retain = torch.randint(case.vocabulary, shape, device=device)

    def loss(self, ids: Tensor, sign: float) -> Tensor:
        """Return the signed mean negative log-likelihood of a batch."""
        logits = self.model(input_ids=ids, use_cache=False).logits[:, :-1]
        return sign * cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    def done(self) -> None:
        """Drop the step's gradients, as an optimizer's zero_grad does."""
        for p in self.parameters:
            p.grad = None

    def summed(self) -> None:
        """Two passes, gradients added up by autograd."""
        backward(self.loss(self.forget, -1))
        backward(self.loss(self.retain, 1))
        self.done()

    def streamed(self, choice: dict[str, Any]) -> Run:
        """Our way: two streams, combined while the second backward runs."""
        streams = Streams(self.model.named_parameters(), amnesis.create("combiner", **choice))

        def run() -> None:
            with streams.forget():
                backward(self.loss(self.forget, -1))
            with streams.retain(last=True):
                backward(self.loss(self.retain, 1))
            streams.combine()
            self.done()

        return run

    def cloned(self, combine: Callable[[list[Tensor], list[Tensor]], list[Tensor]]) -> Run:
        """The field's way: clone every gradient of both passes, combine, copy back."""

        def run() -> None:
            backward(self.loss(self.forget, -1))
            forget = [p.grad.clone() for p in self.parameters if p.grad is not None]
            self.model.zero_grad()
            backward(self.loss(self.retain, 1))
            retain = [p.grad.clone() for p in self.parameters if p.grad is not None]
            for p, g in zip(self.parameters, combine(forget, retain), strict=True):
                p.grad = g
            self.done()

        return run


def masked_sago(forget: list[Tensor], retain: list[Tensor]) -> list[Tensor]:
    """SAGO with boolean masks: aligned and conflicting elements are picked and written apart."""
    out = []
    for f, r in zip(forget, retain, strict=True):
        combined = torch.zeros_like(f)
        conflicting = torch.sign(f) * torch.sign(r) < 0
        aligned = ~conflicting
        combined[aligned] = f[aligned]
        combined[conflicting] = r[conflicting]
        out.append(combined)
    return out


def flat_pcgrad(forget: list[Tensor], retain: list[Tensor]) -> list[Tensor]:
    """Global PCGrad over flat copies of all gradients."""
    f = torch.cat([g.flatten() for g in forget])
    r = torch.cat([g.flatten() for g in retain])
    product = f @ r
    if product < 0:
        f = f - product / (r @ r) * r
    pieces = torch.split(f + r, [g.numel() for g in forget])
    return [piece.view_as(g) for piece, g in zip(pieces, forget, strict=True)]


def measure(name: str, rounds: int, only: list[str], device: str) -> str:
    """Run one case; give its table and, line by line, whether the bars are met."""
    case = CASES[name]
    bench = Bench(case, device)
    alternatives: dict[str, Run] = {"summed gradients": bench.summed}
    alternatives |= {n: bench.streamed(c) for n, c in COMBINERS.items() if not only or n in only}
    if not only:
        alternatives["sago, clones and masks"] = bench.cloned(masked_sago)
        alternatives["pcgrad, global, flat clones"] = bench.cloned(flat_pcgrad)
    seconds = rounds_of(alternatives, rounds)
    peaks = {n: peak_bytes(run) for n, run in alternatives.items()}
    weights = sum(p.numel() * p.element_size() for p in bench.parameters)
    title = (
        f"{name}: {weights / 4e6:.1f} M parameters, {case.batch} x {case.tokens} tokens a stream, "
        f"{rounds} rounds, {torch.get_num_threads()} threads, {device}"
    )
    base = "summed gradients"
    lines = [table(title, seconds, peaks, base, weights)]
    for combiner, bar in case.bars.items():
        if combiner in seconds:
            pairs = zip(seconds[combiner], seconds[base], strict=True)
            low = quartiles([a / b for a, b in pairs])[0]
            peak = (peaks[combiner] + weights) / (peaks[base] + weights)
            lines.append(
                f"  {combiner}: time {low:.2f}, bar {bar} ({'met' if low <= bar else 'missed'}); "
                f"peak {peak:.2f}, bar {PEAK_BAR} ({'met' if peak <= PEAK_BAR else 'missed'})"
            )
    return "\n".join(lines)


def main() -> None:
    """Print every case's table."""
    given = arguments(__doc__, CASES, 25, "combiners").parse_args()
    for name in given.case:
        print(measure(name, given.rounds, given.only, given.device), end="\n\n")


if __name__ == "__main__":
    main()
