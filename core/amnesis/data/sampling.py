"""Sampling: which examples each optimizer step sees, as a pure function of seed and step."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

from amnesis.data.batches import Batch, collate
from amnesis.data.examples import ExampleSet


@dataclass(frozen=True)
class StepBatches:
    """The micro-batches that one rank runs in one optimizer step, stream by stream."""

    forget: tuple[Batch, ...]
    retain: tuple[Batch, ...]

    def of(self, stream: str) -> tuple[Batch, ...]:
        """Return the micro-batches of ``forget`` or ``retain``."""
        return self.forget if stream == "forget" else self.retain


@dataclass(frozen=True)
class StepPlan:
    """The batches of a run, one item per optimizer step: a data set for torch's ``DataLoader``.

    Each stream draws from its own set, epoch after epoch, in an order given by hashes of (seed,
    stream, epoch, index). No state is kept between steps, so a resumed run and any number of ranks
    or workers see the same examples. Of a set of weighted parts, each has its share of as many
    draws as the set has examples, and goes through epochs of its own.

    Attributes:
        forget: the examples that are forgotten.
        retain: the examples that are kept; None where there is no retain stream.
        steps: optimizer steps.
        batch_size: forget examples per step, over all ranks; each rank takes every
            ``world``-th of them.
        micro_batch_size: examples per forward pass. A step's examples are sorted by length before
            they are divided, which changes no loss: means run over the whole step.
        pad_token_id: the id to pad with.
        retain_batch_size: retain examples per step; None: as many as forget examples.
        forget_draws: the number of forget examples after which the last step ends early, so that
            a run ends with an epoch; None: every step is full.
        seed: decides the order.
        rank: the process that these batches are for.
        world: the number of processes.
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
        """A digest of all examples' tokens, labels and shares, equal in a resumed run."""
        sets = [s for s in (self.forget, self.retain) if s is not None]
        digest = hashlib.blake2b(digest_size=16)
        for one in sets:
            for key in one.digests():
                digest.update(key.encode())
        parts = [f"{weight}:{size}" for one in sets for weight, size in one.parts]
        digest.update("".join(parts).encode())
        return digest.hexdigest()

    def _micro_batches(
        self, stream: str, examples: ExampleSet, step: int, size: int
    ) -> tuple[Batch, ...]:
        first, last = step * size, (step + 1) * size
        if stream == "forget" and self.forget_draws is not None:
            last = min(last, self.forget_draws)
        draws = range(first, last)[self.rank :: self.world]
        indices = [self._draw(stream, examples, k) for k in draws]
        batch = sorted((examples.examples[i] for i in indices), key=lambda e: (e.length, e.index))
        return tuple(
            collate(batch[start : start + self.micro_batch_size], self.pad_token_id)
            for start in range(0, len(batch), self.micro_batch_size)
        )

    def _draw(self, stream: str, examples: ExampleSet, k: int) -> int:
        """Return the index of the example that is a stream's k-th draw, counted from 0."""
        part, start = 0, 0
        if len(examples.parts) > 1:
            weights = tuple(weight for weight, _ in examples.parts)
            part, k = draw_of(weights, len(examples), self.seed, stream, k)
            start = sum(size for _, size in examples.parts[:part])
        size = examples.parts[part][1] if examples.parts else len(examples)
        epoch, place = divmod(k, size)
        return start + shuffled(size, self.seed, f"{stream}/{part}", epoch)[place]


def steps_of(epochs: float, examples: int, batch_size: int) -> tuple[int, int]:
    """Return how many steps and draws pass over ``examples`` examples ``epochs`` times."""
    draws = max(1, round(epochs * examples))
    return math.ceil(draws / batch_size), draws


def draw_of(
    weights: tuple[float, ...], size: int, seed: int, stream: str, k: int
) -> tuple[int, int]:
    """Return the part that draw ``k`` is from, and how many earlier draws are from that part.

    Every ``size`` draws, an epoch, hold each part within one draw of its share, in a hashed order;
    what is rounded off in one epoch is made up for in later ones.
    """
    epoch, place = divmod(k, size)
    return _order(weights, size, seed, stream, epoch)[place]


@lru_cache(maxsize=8)
def _order(
    weights: tuple[float, ...], size: int, seed: int, stream: str, epoch: int
) -> tuple[tuple[int, int], ...]:
    before, quotas = _apportionment(weights, size).of(epoch)
    parts = [part for part, quota in enumerate(quotas) for _ in range(quota)]
    counts = list(before)
    draws: list[tuple[int, int]] = []
    for index in shuffled(size, seed, f"{stream}/parts", epoch):
        part = parts[index]
        draws.append((part, counts[part]))
        counts[part] += 1
    return tuple(draws)


class Apportionment:
    """The draws of each weighted part in epochs of ``size`` draws, by largest remainder.

    In the first epoch every part has its share, rounded down, and those with the largest remainders
    one more. In each later epoch the further draws go to those parts of whose remainders so far a
    whole draw is due the soonest (Tijdeman's rule for the chairman assignment problem), so that no
    part is ever a whole draw from its share. All of it is in whole numbers, hence exact.
    """

    def __init__(self, weights: tuple[float, ...], size: int) -> None:
        """Take weights that are not negative, not all of them 0."""
        ratios = [Fraction(weight) for weight in weights]
        scale = math.lcm(*(ratio.denominator for ratio in ratios))
        shares = [int(ratio * scale) for ratio in ratios]
        self._total = sum(shares)
        self._floors = [size * share // self._total for share in shares]
        self._remainders = [size * share % self._total for share in shares]
        self._due = [0] * len(shares)  # what the parts lack of their shares, times the total
        self._before: list[tuple[int, ...]] = [(0,) * len(shares)]

    def of(self, epoch: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return how many draws each part has before an epoch, and how many in it."""
        while len(self._before) < epoch + 2:
            quotas = zip(self._before[-1], self._next(), strict=True)
            self._before.append(tuple(before + quota for before, quota in quotas))
        before, after = self._before[epoch : epoch + 2]
        return before, tuple(b - a for a, b in zip(before, after, strict=True))

    def _next(self) -> list[int]:
        self._due = [due + rest for due, rest in zip(self._due, self._remainders, strict=True)]
        quotas = list(self._floors)

        def urgency(part: int) -> tuple[bool, Fraction]:
            due = self._due[part]
            return due <= 0, Fraction(self._total - due, self._remainders[part])

        waiting = sorted((p for p, rest in enumerate(self._remainders) if rest), key=urgency)
        for part in waiting[: sum(self._remainders) // self._total]:
            quotas[part] += 1
            self._due[part] -= self._total
        return quotas


@lru_cache(maxsize=8)
def _apportionment(weights: tuple[float, ...], size: int) -> Apportionment:
    return Apportionment(weights, size)


@lru_cache(maxsize=16)
def shuffled(size: int, seed: int, stream: str, epoch: int) -> tuple[int, ...]:
    """Return ``range(size)`` in a hashed order, the same on every machine and rank."""

    def rank(index: int) -> bytes:
        key = f"{seed}/{stream}/{epoch}/{index}".encode()
        return hashlib.blake2b(key, digest_size=8).digest()

    return tuple(sorted(range(size), key=rank))
