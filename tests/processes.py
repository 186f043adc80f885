"""Processes on one machine that form one group, as ``torchrun`` starts them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What each process needs is imported once, by a server that forks them: half of a test's time.
multiprocessing.set_forkserver_preload(
    ["amnesis.runs.run", "amnesis.cli.run", "amnesis_evaluation.benchmarks", "tests.processes"]
)


def on_two_ranks(work: Callable[..., object], folder: Path, *arguments: Any) -> None:
    """Call ``work(rank, folder, *arguments)`` in each of two processes; wait for both."""
    on_ranks(2, work, folder, *arguments)


def on_ranks(ranks: int, work: Callable[..., object], folder: Path, *arguments: Any) -> None:
    """Call ``work(rank, folder, *arguments)`` in each of some processes; wait for all.

    Raises:
        ProcessRaisedException: one of them failed; its traceback is in the message.
    """
    from torch.multiprocessing.spawn import start_processes

    (folder / "store").unlink(missing_ok=True)  # of an earlier group
    start_processes(  # type: ignore[no-untyped-call]  # torch's
        _member, (ranks, work, folder, arguments), nprocs=ranks, start_method="forkserver"
    )


def _member(
    rank: int, ranks: int, work: Callable[..., object], folder: Path, arguments: tuple[Any]
) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)  # as torchrun sets it, and lm-eval reads it
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=ranks)
    work(rank, folder, *arguments)
    dist.destroy_process_group()
