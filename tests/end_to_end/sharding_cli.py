"""The command line where accelerate shards on a CPU too, as it does on accelerators."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def carry_out(
    rank: int, folder: Path, line: Sequence[str], ranks: int, settings: Mapping[str, Any]
) -> None:
    """Carry a command line out as one rank, with FSDP's settings as accelerate launch hands them."""
    from accelerate import state
    from accelerate.utils import DistributedType

    plain = state.AcceleratorState.__init__

    def sharding(self: Any, *arguments: Any, fsdp_plugin: Any = None, **options: Any) -> None:
        plain(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    state.AcceleratorState.__init__ = sharding
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": "true"}
    os.environ |= {key.upper(): str(value) for key, value in settings.items()}
    from amnesis.cli.app import main

    assert main(list(line)) == 0
