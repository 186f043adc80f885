"""Two real processes (gloo) give what one gives: each stream's gradient, and every combiner's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from amnesis.distributed.processes import added_over_ranks, alone, world

RANK_SCRIPT = Path(__file__).parent / "two_ranks.py"


def launched(how: str, folder: Path) -> dict[str, Any]:
    """Run two ranks; give rank 0's findings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, str(RANK_SCRIPT), how, str(folder)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(outputs)
    found: dict[str, Any] = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("how", ["plain", "sharded"])
def test_two_ranks_give_what_one_gives(how: str, tmp_path: Path) -> None:
    """Accumulation 1 and 3, float32 to 1e-6 and float64 to 1e-10, relative to the norm."""
    found = launched(how, tmp_path)
    assert len(found) == 1 + 2 * 2 * (2 + 11)  # the streams and eleven combiners
    for name, error in found.items():
        assert error <= (1e-6 if "float32" in name else 1e-10), (name, error)


def test_a_process_may_work_as_if_it_were_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    assert world() == (1, 2)
    with alone():
        assert world() == (0, 1)
        assert added_over_ranks({"a": 3}) == {"a": 3}
    assert world() == (1, 2)
