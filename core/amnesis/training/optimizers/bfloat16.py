"""Weights held in bfloat16, updated without losing what is smaller than their rounding.

A bfloat16 number has 8 significant bits, so an update below 2⁻⁹ of a weight's size rounds to
nothing: at a learning rate of 1e-5, AdamW's step is lost on every weight above 0.005, norms
included. Three ways to update such weights:

``master``      float32 master weights and moments (Micikevicius et al. 2018, arXiv 1710.03740). The
                model computes with their rounding; beside it only the 16 bits that it lacks are
                held, as in Split-SGD (Kalamkar et al. 2020, arXiv 2005.04680).
``stochastic``  weights and moments of 16 bits, each rounded up or down at random so that its mean
                is the float32 result (Gupta et al. 2015, arXiv 1502.02551). No memory beside plain.
``plain``       weights and moments of 16 bits, rounded to nearest.

In all three the model that is saved is the one that was trained and evaluated, to the bit: every
forward pass reads the bfloat16 weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.optim import Optimizer

from amnesis.distributed.processes import added_over_ranks
from amnesis.distributed.shards import is_sharded, laid_as, local, over_shards
from amnesis.models.devices import memory_of

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from amnesis.training.report import StepLog

Way = Literal["master", "stochastic", "plain"]
ROUNDING = 2**-9  # an update below this share of a weight never reaches the next bfloat16
SHARE_OF_MEMORY = 0.75  # the rest is for activations
BUCKET_ELEMENTS = 1 << 24  # how many weights are widened at a time: 64 MiB in float32
_LOWER_BITS = 1 << 16  # float32 has 16 bits more than bfloat16, which is its upper half

NOTES: dict[str, str] = {
    "master": "bfloat16 weights are updated through float32 master weights; the model is written "
    "in bfloat16, as it computed at every step",
    "stochastic": "bfloat16 weights are updated by stochastic rounding",
    "plain": "bfloat16 weights are rounded to nearest after each update: update/unchanged_share is "
    "the share of them that it leaves as they were",
}


def over_bfloat16(
    optimizer: Optimizer,
    model: nn.Module,
    way: Way | Literal["auto"],
    *,
    seed: int,
    update: Callable[[], int],
    shards: int,
    log: StepLog,
    logged: Callable[[], bool],
) -> Optimizer:
    """Return an optimizer that updates the weights in bfloat16 in that way.

    It is ``optimizer`` itself where no such weight trains. ``shards`` is over how many ranks the
    model will be sharded, if it is not yet. Random rounding depends on ``seed`` and the number of
    the present ``update``; ``logged`` says whether the present step is.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    if all(p.dtype is not torch.bfloat16 for p in trained):
        return optimizer
    if way == "auto":
        moments = (
            2
            if isinstance(optimizer, torch.optim.Adam)
            else int(optimizer.defaults["momentum"] > 0)
        )
        needed = sum(local(p).nbytes for p in model.parameters())
        needed += sum(
            2 * p.nbytes + p.numel() * update_bytes("master", moments) for p in map(local, trained)
        )
        fitting = way_that_fits(needed // shards, str(trained[0].device))
        tight = added_over_ranks({"tight": int(fitting != "master")})["tight"]
        way = "stochastic" if tight else "master"  # all ranks alike
    return Bfloat16Optimizer(optimizer, way, seed=seed, update=update, log=log, logged=logged)


def update_bytes(way: Way, moments: int) -> int:
    """Return the bytes that the update of one bfloat16 weight keeps beside it and its gradients.

    ``moments`` is how many tensors of a weight's shape the optimizer holds: 2 for AdamW.
    """
    return 2 + 4 * moments if way == "master" else 2 * moments


def way_that_fits(needed: int, device: str) -> Way:
    """Return ``master``, or ``stochastic`` where a device's memory is too small for it.

    ``needed`` are the bytes of weights, two gradients, master weights and moments on the device.
    """
    memory = memory_of(device)
    tight = memory is not None and needed > SHARE_OF_MEMORY * memory
    return "stochastic" if tight else "master"


class Bfloat16Optimizer(Optimizer):
    """Makes another optimizer's steps in float32 on weights in bfloat16.

    The parameters are the model's own, and their state is held here; a piece at a time is widened,
    stepped and rounded. Those of other types are stepped as they are. On logged steps
    ``update/unchanged_share`` is, of the bfloat16 weights whose gradient is not 0, the share that
    the update left as they were: of the master weights where there are, of those in bfloat16
    otherwise.
    """

    def __init__(
        self,
        inner: Optimizer,
        way: Way,
        *,
        seed: int = 0,
        update: Callable[[], int] = lambda: 0,
        log: StepLog | None = None,
        logged: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take over the parameter groups of ``inner``, whose rule must be elementwise."""
        super().__init__(inner.param_groups, inner.defaults)
        for group in self.param_groups:
            # In the groups, so that a checkpoint has it and a resumed run goes on alike.
            group["bfloat16_weights"] = way
        inner.param_groups = []
        self._inner, self._log, self._logged = inner, log, logged
        self._seed, self._number = seed, update
        self._first_states: dict[Tensor, dict[str, Tensor]] = {}  # until all pieces are stepped

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        watched = self._log is not None and self._logged()
        counts: list[tuple[Tensor, Tensor]] = []
        rounding = _Rounding(self._seed, self._number())
        for group in self.param_groups:
            for bucket in _buckets(group["params"], group["bfloat16_weights"]):
                counts += self._update(group, bucket, rounding, watched=watched)
        if self._log is None:
            return
        note = NOTES[self.param_groups[0]["bfloat16_weights"]]
        if note not in self._log.notes:
            self._log.note(note)
        if counts:
            elements, unchanged = _totals(counts).tolist()
            self._log.add({"update/unchanged_share": unchanged / elements if elements else 0.0})

    def _update(
        self, group: dict[str, Any], bucket: list[_Piece], rounding: _Rounding, *, watched: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Update some pieces of a group's parameters.

        If ``watched``, yield of each its parameter, and how many elements have a gradient and how
        many of those are left as they were.
        """
        way: Way = group["bfloat16_weights"]
        wide = [self._widened(piece, way) for piece in bucket]
        before = [
            w.clone() if watched and _is_narrow(piece.p) else None
            for piece, w in zip(bucket, wide, strict=True)
        ]
        self._inner.param_groups = [{**group, "params": wide}]
        self._inner.step()
        for piece, w, b in zip(bucket, wide, before, strict=True):
            self._narrow(piece, w, way, rounding)
            if b is not None:
                after = w if way == "master" else piece.p
                moved = piece.of(piece.gradient) != 0
                kept = moved & (piece.of(after) == local(b))
                yield piece.p, torch.stack([moved.sum(), kept.sum()]).double()

    def _widened(self, piece: _Piece, way: Way) -> Tensor:
        """Return what the inner optimizer steps for a piece, given its state and gradient."""
        p = piece.p
        if not _is_widened(p, way):
            self._inner.state[p] = self.state.pop(p, {})
            return p
        state = {
            name: value.clone() if name == "step" else piece.of(value)
            for name, value in self.state.get(p, {}).items()
        }
        lower = state.pop("lower", None)
        wide = piece.of(p).float() if lower is None else joined(piece.of(p), lower)
        wide.grad = piece.of(piece.gradient).float()
        self._inner.state[wide] = {name: value.float() for name, value in state.items()}
        return wide

    def _narrow(self, piece: _Piece, wide: Tensor, way: Way, rounding: _Rounding) -> None:
        """Round what was stepped into its piece, and take its state back."""
        p, stepped = piece.p, self._inner.state.pop(wide)
        if wide is p:
            self.state[p] = stepped
            return
        wide.grad = None
        step = {name: stepped.pop(name) for name in ("step",) if name in stepped}
        if way == "master":
            upper, stepped["lower"] = split(wide)
        else:
            generator = rounding.generator(wide.device)
            upper = rounded(wide, generator)
            stepped = {name: rounded(value, generator) for name, value in stepped.items()}
        piece.of(p).copy_(upper)
        state = self.state.get(p) or self._first_states.setdefault(p, {})
        for name, value in stepped.items():
            if name not in state:
                state[name] = laid_as(torch.empty_like(local(p), dtype=value.dtype), p)
            piece.of(state[name]).copy_(value)
        if piece.is_last:
            self._first_states.pop(p, None)
            self.state[p] = state | step

    def full_precision(self, p: Tensor) -> Tensor:
        """Return this rank's elements of a weight in float32: the master weight where there is."""
        lower = self.state.get(p, {}).get("lower")
        return local(p).float() if lower is None else joined(local(p), local(lower))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, each tensor in the type that it was saved in."""
        super().load_state_dict(state_dict)  # which casts all of it to the parameters' type
        parameters = [p for group in self.param_groups for p in group["params"]]
        numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
        for number, p in zip(numbers, parameters, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                if name != "step":
                    self.state[p][name] = value.to(p.device)


class _Rounding:
    """The random numbers of one update: the same whenever, and on whichever rank, it is made.

    Replicas of a weight must be rounded alike, and a resumed run as if it had not been cut off.
    """

    def __init__(self, seed: int, update: int) -> None:
        self._seed = hash((seed, update))  # of numbers, which Python hashes alike everywhere
        self._generators: dict[torch.device, Generator] = {}

    def generator(self, device: torch.device) -> Generator:
        """Return the update's generator on a device."""
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


def split(wide: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest bfloat16 to each float32, and in int16 the bits by which they differ.

    Ties are rounded away from 0: to even, as torch does it, the difference would not fit.
    """
    bits = wide.view(torch.int32)
    upper = (bits + _LOWER_BITS // 2) & -_LOWER_BITS
    return upper.view(torch.float32).bfloat16(), (bits - upper).to(torch.int16)


def joined(upper: Tensor, lower: Tensor) -> Tensor:
    """Return the float32 that :func:`split` took apart, to the bit."""
    return (upper.float().view(torch.int32) + lower).view(torch.float32)


def rounded(wide: Tensor, generator: Generator) -> Tensor:
    """Round each float32 to one of the two bfloat16 beside it, in the mean to itself."""
    noise = torch.randint(
        _LOWER_BITS, wide.shape, dtype=torch.int32, device=wide.device, generator=generator
    )
    upper = noise.add_(wide.view(torch.int32)).bitwise_and_(-_LOWER_BITS)
    return upper.view(torch.float32).bfloat16()


def _totals(counts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the sum of each parameter's counts, over all ranks where parameters are sharded."""
    total = torch.zeros_like(counts[0][1])
    for sharded in (False, True):
        chosen = [(p, count) for p, count in counts if is_sharded(p) == sharded]
        if chosen:  # ranks may have different numbers of pieces, so they add up their sums
            subtotal = torch.stack([count.to(total.device) for _, count in chosen]).sum(0)
            total += over_shards(subtotal, chosen[0][0])
    return total


def _is_narrow(tensor: Tensor) -> bool:
    return tensor.dtype is torch.bfloat16


def _is_widened(p: Tensor, way: Way) -> bool:
    return way != "plain" and _is_narrow(p)


@dataclass(frozen=True)
class _Piece:
    """Some elements of a parameter, on this rank: all, or of a large one those of a range."""

    p: Tensor
    start: int
    stop: int

    @property
    def gradient(self) -> Tensor:
        """The parameter's gradient."""
        assert self.p.grad is not None  # noqa: S101  # _buckets left out those without
        return self.p.grad

    @property
    def is_last(self) -> bool:
        """Whether it ends where its parameter does."""
        return self.stop == local(self.p).numel()

    def of(self, tensor: Tensor) -> Tensor:
        """Return these elements of a tensor of the parameter's shape, or of just these."""
        elements = local(tensor)
        if elements.numel() == self.stop - self.start:
            return elements
        return elements.reshape(-1)[self.start : self.stop]


def _buckets(parameters: Iterable[Tensor], way: Way) -> Iterator[list[_Piece]]:
    """Yield the parameters that have a gradient, as many elements at a time as may be widened."""
    bucket: list[_Piece] = []
    room = BUCKET_ELEMENTS
    for p in parameters:
        if p.grad is None:
            continue
        elements = local(p).numel()
        divides = _is_widened(p, way) and local(p).is_contiguous()
        length = BUCKET_ELEMENTS if divides else elements
        for start in range(0, max(elements, 1), max(length, 1)):  # a rank's shard may be empty
            piece = _Piece(p, start, min(start + length, elements))
            if bucket and piece.stop - start > room:
                yield bucket
                bucket, room = [], BUCKET_ELEMENTS
            bucket.append(piece)
            room -= piece.stop - start
    if bucket:
        yield bucket
