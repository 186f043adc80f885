"""The processes of a run: totals over all ranks, and work for the first rank alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from amnesis.errors import AmnesisError, DataError

K = TypeVar("K", bound=Hashable)
N = TypeVar("N", int, float)
T = TypeVar("T")
P = ParamSpec("P")


_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Inside ``with``, this process works as if it were the only one."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def world() -> tuple[int, int]:
    """Return (rank, number of processes); (0, 1) where there is no process group."""
    import torch.distributed as dist

    if _alone.get() or not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def join(device: str | None) -> None:
    """Join the process group that a launcher (torchrun, accelerate) prepared, if one did."""
    import os

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        PartialState(cpu=device == "cpu")


def from_first_rank(action: Callable[[], T]) -> T:
    """Call ``action`` on the first rank alone, and return its (picklable) result on every rank.

    Raises:
        AmnesisError: the action raised it; it is raised on every rank, so that none waits for ever.
    """
    if world()[1] == 1:
        return action()
    import torch.distributed as dist

    message: list[Any] = [None, None]  # the result and the error
    if world()[0] == 0:
        try:
            message[0] = action()
        except AmnesisError as error:
            message[1] = error
    dist.broadcast_object_list(message, src=0)
    if message[1] is not None:
        raise message[1]
    result: T = message[0]
    return result


def check_same(what: str, value: str) -> None:
    """Refuse to go on, on every rank, where the ranks hold different values.

    Raises:
        DataError: naming ``what`` differs.
    """
    if world()[1] == 1:
        return
    first = from_first_rank(lambda: value)
    if added_over_ranks({"different": int(value != first)})["different"]:
        raise DataError(
            f"{what} differs between the processes; give all of them the same files and versions"
        )


def first_rank_only(write: Callable[P, None]) -> Callable[P, None]:
    """Decorate a function that writes, so that it does nothing on every rank but the first."""

    @functools.wraps(write)
    def wrapper(*arguments: P.args, **options: P.kwargs) -> None:
        if world()[0] == 0:
            write(*arguments, **options)

    return wrapper


def added_over_ranks(values: dict[K, N]) -> dict[K, N]:
    """Return each value's sum over all ranks, computed in float64.

    Every rank must pass the same keys, and values of one type, int or float.
    """
    if world()[1] == 1 or not values:
        return values
    import torch
    import torch.distributed as dist

    keys = sorted(values, key=str)
    kind = type(next(iter(values.values())))
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sums = torch.tensor([values[k] for k in keys], dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return {k: kind(v) for k, v in zip(keys, sums.tolist(), strict=True)}


def gathered_names(names: Iterable[str]) -> list[str]:
    """Return the names that any rank holds, sorted; every rank must call it."""
    own = sorted(names)
    if world()[1] == 1:
        return own
    import torch.distributed as dist

    lists: list[list[str]] = [[] for _ in range(world()[1])]
    dist.all_gather_object(lists, own)
    return sorted({name for listed in lists for name in listed})


def barrier() -> None:
    """Wait until every rank has called this."""
    import torch.distributed as dist

    if world()[1] > 1:
        dist.barrier()
