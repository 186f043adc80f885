"""Two processes on one machine that form one group, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def on_two_ranks(work: Callable[..., object], folder: Path, *arguments: Any) -> None:
    """Call ``work(rank, folder, *arguments)`` in each of two processes; wait for both."""
    from torch.multiprocessing.spawn import spawn

    spawn(_member, (work, folder, arguments), nprocs=2)  # type: ignore[no-untyped-call]  # torch's


def _member(rank: int, work: Callable[..., object], folder: Path, arguments: tuple[Any]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)  # as torchrun sets it, and lm-eval reads it
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    work(rank, folder, *arguments)
    dist.destroy_process_group()
