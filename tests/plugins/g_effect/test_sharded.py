"""Total and per layer of a sharded model: products of shards, added over processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_two_processes_that_share_a_model_agree_with_one_that_has_it_whole() -> None:
    script = Path(__file__).with_name("sharded_process.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Not line by line: two processes that write at once may share one.
    assert all(f"rank {rank} agrees" in done.stdout for rank in range(2)), done.stdout
