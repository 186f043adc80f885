"""A step with KL to a frozen reference: in chunks, by whole logits, and beside a plain step.

    python benchmarks/divergence.py [--rounds 9] [--vocabulary 16384] [--frozen]

Each alternative makes a forward and a backward pass over one batch. ``nll`` is the plain step: the
log-probabilities of labels alone. The others add up KL over the same places: ``whole`` holds the
logits of both models, those of the reference looked up among logits that were kept; ``copy`` runs a
second model for them at every step, as is needed where they are too many to keep; ``chunked`` is
ours, which keeps what the reference's head reads. Peaks are weights, AdamW's moments, gradients and
what a pass makes; ``held`` is what a reference keeps between steps beside that, for this batch. The
bars hold for chunked: its peak against the plain step's, its time against ``copy``.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from typing import Any

import torch
from measuring import Run, peak_bytes, quartiles, rounds_of, table
from torch import Tensor
from torch.autograd import backward
from torch.nn.functional import kl_div

import amnesis
from amnesis.contracts import Needs, StreamLoss, WeightedTerm
from amnesis.data.batches import Batch
from amnesis.scoring.forward import score, score_frozen
from amnesis.scoring.head import ChunkedHead
from amnesis.scoring.scores import Scores

PEAK_BAR, TIME_BAR = 1.1, 1.0


@dataclass(frozen=True)
class Shape:
    """A model and a batch."""

    hidden: int
    layers: int
    vocabulary: int
    batch: int
    tokens: int


class Bench:
    """A model, a batch of which half the tokens are labels, and a reference of it."""

    def __init__(self, shape: Shape, frozen: bool, device: str) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        self.model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.hidden,
                intermediate_size=3 * shape.hidden,
                num_hidden_layers=shape.layers,
                num_attention_heads=4,
                tie_word_embeddings=not frozen,
            )
        ).to(device)
        if frozen:
            self.model.get_output_embeddings().requires_grad_(False)
        self.copy = copy.deepcopy(self.model).requires_grad_(False)
        with torch.no_grad():
            for p in self.model.parameters():
                if p.requires_grad:
                    p.add_(0.1 * p.std() * torch.randn_like(p))
        ids = torch.randint(shape.vocabulary, (shape.batch, shape.tokens), device=device)
        labels = ids.masked_fill(torch.arange(shape.tokens, device=device) % 2 == 0, -100)
        keys = tuple(map(str, range(shape.batch)))
        self.batch = Batch(ids, torch.ones_like(ids), labels, keys)
        self.head = ChunkedHead(self.model)
        self.loss = StreamLoss("retain", (WeightedTerm(amnesis.create("regularizer", "kl")),))
        # What is kept of the reference between steps, in either way.
        with torch.no_grad():
            self.logits = self._logits(self.copy).clone()
        head = ChunkedHead(self.copy)
        self.known = score_frozen(self.copy, self.batch, Needs(logits=True), head, head.frozen())

    def held(self) -> dict[str, int]:
        """Return how many bytes each way keeps between steps, for this batch."""
        weight = self.model.get_output_embeddings().weight
        weights = sum(p.numel() * p.element_size() for p in self.copy.parameters())
        copied = weight.numel() * weight.element_size() if weight.requires_grad else 0
        return {
            "nll": 0,
            "whole": self.logits.numel() * self.logits.element_size(),
            "copy": weights,
            "chunked": self.known.head_rows.numel() * self.known.head_rows.element_size() + copied,
        }

    def nll(self) -> None:
        """The plain step."""
        scores = score(self.model, self.batch, Needs(logps=True), head=self.head)
        self._finish(-scores.logps.sum() / scores.mask.sum())

    def whole(self) -> None:
        """Logits of both models at once, those of the reference kept."""
        self._finish(self._kl(self._logits(self.model), self.logits))

    def by_copy(self) -> None:
        """Logits of both models at once, those of the reference from a pass of a copy."""
        with torch.no_grad():
            known = self._logits(self.copy)
        self._finish(self._kl(self._logits(self.model), known))

    def chunked(self) -> None:
        """Ours."""
        loss = self.loss
        scores: Scores = score(
            self.model, self.batch, loss.needs, self.known, self.head, loss.row_terms
        )
        self._finish(loss(scores, loss.counts([self.batch])))

    def _logits(self, model: Any) -> Tensor:
        """Return the logits at the places of labels; at others none are made, as for all here."""
        scores = score(model, self.batch, Needs(logits=True))
        return scores.logits

    def _kl(self, logits: Tensor, known: Tensor) -> Tensor:
        return kl_div(
            logits.log_softmax(-1), known.log_softmax(-1), reduction="batchmean", log_target=True
        )

    def _finish(self, loss: Tensor) -> None:
        backward(loss)
        for p in self.model.parameters():
            p.grad = None


def main() -> None:
    """Print a table, and whether the bars are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, nargs="*", default=[16_384])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--frozen", action="store_true", help="a head that does not train")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    for vocabulary in given.vocabulary:
        shape = Shape(given.hidden, given.layers, vocabulary, given.batch, given.tokens)
        bench = Bench(shape, given.frozen, given.device)
        runs: dict[str, Run] = {
            "nll": bench.nll,
            "whole": bench.whole,
            "copy": bench.by_copy,
            "chunked": bench.chunked,
        }
        seconds = rounds_of(runs, given.rounds)
        peaks = {name: peak_bytes(run) for name, run in runs.items()}
        sizes = [p.numel() * p.element_size() for p in bench.model.parameters()]
        trained = [p.requires_grad for p in bench.model.parameters()]
        moments = 2 * sum(n for n, t in zip(sizes, trained, strict=True) if t)
        weights = sum(sizes)
        held_by_all = weights + moments
        title = (
            f"{weights / 4e6:.1f} M parameters, vocabulary {vocabulary}, {given.batch} x "
            f"{given.tokens} tokens, half of them labels, "
            f"{'frozen' if given.frozen else 'tied'} head, {given.rounds} rounds, "
            f"{torch.get_num_threads()} threads, {given.device}"
        )
        print(table(title, seconds, peaks, "nll", held_by_all))
        held = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in bench.held().items())
        print(f"  held between steps, MB: {held}")
        times = {
            other: quartiles(
                [a / b for a, b in zip(seconds["chunked"], seconds[other], strict=True)]
            )[1]
            for other in ("whole", "copy")
        }
        together = peaks["chunked"] + bench.held()["chunked"] + held_by_all
        peak = together / (peaks["nll"] + held_by_all)
        print(
            f"  chunked: time against whole {times['whole']:.2f}, against copy "
            f"{times['copy']:.2f}, bar {TIME_BAR} ({met(times['copy'], TIME_BAR)}); peak against "
            f"nll, held included, {peak:.2f}, bar {PEAK_BAR} ({met(peak, PEAK_BAR)})"
        )


def met(value: float, bar: float) -> str:
    """Return whether a bar is met, in a word."""
    return "met" if value <= bar else "missed"


if __name__ == "__main__":
    main()
