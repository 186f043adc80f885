"""The command line where accelerate shards on a CPU too, as it does on accelerators."""

from __future__ import annotations

import sys
from typing import Any

from accelerate import state
from accelerate.utils import DistributedType

_plain = state.AcceleratorState.__init__


def _sharding(self: Any, *arguments: Any, fsdp_plugin: Any = None, **options: Any) -> None:
    _plain(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.FSDP
        state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


if __name__ == "__main__":
    state.AcceleratorState.__init__ = _sharding
    from amnesis.cli.app import main

    sys.exit(main())
