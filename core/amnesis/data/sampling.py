"""Which examples each optimizer step sees: a pure function of seed and step."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

from amnesis.data.batches import Batch, collate
from amnesis.data.examples import ExampleSet

BLOCK = 1000  # draws in which weighted parts are exactly in proportion


@dataclass(frozen=True)
class StepBatches:
    """The micro-batches that one rank runs in one optimizer step, stream by stream."""

    forget: tuple[Batch, ...]
    retain: tuple[Batch, ...]


@dataclass(frozen=True)
class StepPlan:
    """A run's batches, one item per optimizer step, for ``torch.utils.data.DataLoader``.

    Each stream draws from its own set, epoch after epoch, in an order that hashes (seed, stream,
    epoch, index): nothing is remembered between steps, so a resumed run and any number of ranks
    or workers see the same examples. ``batch_size`` counts a stream's examples per optimizer step
    over all ranks; each rank takes every ``world``-th of them and runs at most
    ``micro_batch_size`` at a time, sorted by length (exact, for reduction is over the whole step).
    Weighted parts of a set are drawn from in proportion, each epoch after epoch of its own.
    ``forget_draws`` ends the last step early where an epoch's end was asked for.
    """

    forget: ExampleSet
    retain: ExampleSet | None
    steps: int
    batch_size: int
    micro_batch_size: int
    pad_token_id: int
    retain_batch_size: int | None = None
    forget_draws: int | None = None
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> StepBatches:
        if not 0 <= step < self.steps:
            raise IndexError(step)
        forget = self._micro_batches("forget", self.forget, step, self.batch_size)
        retain: tuple[Batch, ...] = ()
        if self.retain is not None:
            size = self.retain_batch_size or self.batch_size
            retain = self._micro_batches("retain", self.retain, step, size)
        return StepBatches(forget, retain)

    @cached_property
    def digest(self) -> str:
        """A digest of every example's tokens and labels: that of a resumed run must be equal."""
        sets = [s for s in (self.forget, self.retain) if s is not None]
        texts = (
            text.key for s in sets for e in s.examples for _, text in sorted(e.sequences.items())
        )
        return hashlib.blake2b("".join(texts).encode(), digest_size=16).hexdigest()

    def _micro_batches(
        self, stream: str, examples: ExampleSet, step: int, size: int
    ) -> tuple[Batch, ...]:
        first, last = step * size, (step + 1) * size
        if stream == "forget" and self.forget_draws is not None:
            last = min(last, self.forget_draws)
        drawn = [self._draw(stream, examples, k) for k in range(first, last)]
        drawn = drawn[self.rank :: self.world]
        chosen = sorted((examples.examples[i] for i in drawn), key=lambda e: (e.length, e.index))
        return tuple(
            collate(chosen[start : start + self.micro_batch_size], self.pad_token_id)
            for start in range(0, len(chosen), self.micro_batch_size)
        )

    def _draw(self, stream: str, examples: ExampleSet, k: int) -> int:
        part, start = 0, 0
        if len(examples.parts) > 1:
            weights = tuple(weight for weight, _ in examples.parts)
            part, k = draw_of(weights, self.seed, stream, k)
            start = sum(size for _, size in examples.parts[:part])
        size = examples.parts[part][1] if examples.parts else len(examples)
        epoch, place = divmod(k, size)
        return start + shuffled(size, self.seed, f"{stream}/{part}", epoch)[place]


def steps_of(epochs: float, examples: int, batch_size: int) -> tuple[int, int]:
    """Return (steps, draws) that see each of ``examples`` ``epochs`` times."""
    draws = max(1, round(epochs * examples))
    return math.ceil(draws / batch_size), draws


def draw_of(weights: tuple[float, ...], seed: int, stream: str, k: int) -> tuple[int, int]:
    """Return (part, its how-manieth draw) of draw ``k`` among parts with these weights.

    Every block of 1,000 draws holds each part in proportion, in a hashed order.
    """
    block, place = divmod(k, BLOCK)
    part, rank = _block(weights, seed, stream, block)[place]
    return part, block * _quotas(weights)[part] + rank


@lru_cache(maxsize=8)
def _block(
    weights: tuple[float, ...], seed: int, stream: str, block: int
) -> tuple[tuple[int, int], ...]:
    parts = [part for part, quota in enumerate(_quotas(weights)) for _ in range(quota)]
    seen = [0] * len(weights)
    drawn: list[tuple[int, int]] = []
    for index in shuffled(BLOCK, seed, f"{stream}/parts", block):
        drawn.append((parts[index], seen[parts[index]]))
        seen[parts[index]] += 1
    return tuple(drawn)


def _quotas(weights: tuple[float, ...]) -> list[int]:
    """Share a block out; every part gets one at least, the largest takes what rounding leaves."""
    quotas = [max(1, round(BLOCK * weight / sum(weights))) for weight in weights]
    quotas[quotas.index(max(quotas))] += BLOCK - sum(quotas)
    return quotas


@lru_cache(maxsize=16)
def shuffled(size: int, seed: int, stream: str, epoch: int) -> tuple[int, ...]:
    """Return ``range(size)`` in an order that is the same on every machine and rank."""

    def rank(index: int) -> bytes:
        key = f"{seed}/{stream}/{epoch}/{index}".encode()
        return hashlib.blake2b(key, digest_size=8).digest()

    return tuple(sorted(range(size), key=rank))
