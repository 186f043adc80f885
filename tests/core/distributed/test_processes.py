"""Two real processes (gloo) give what one gives: each stream's gradient, and every combiner's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from tests.core.distributed.two_ranks import compare
from tests.processes import on_two_ranks

from amnesis.distributed.processes import added_over_ranks, alone, world


@pytest.mark.parametrize("how", ["plain", "sharded"])
def test_two_ranks_give_what_one_gives(how: str, tmp_path: Path) -> None:
    """Accumulation 1 and 3, float32 to 1e-6 and float64 to 1e-10, relative to the norm."""
    on_two_ranks(compare, tmp_path, how)
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
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
