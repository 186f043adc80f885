"""The trainer on two real processes with fully_shard: equal to one process on the whole model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import processes
from tests.core.training.sharded_process import RUNS, do, finish, trajectories

pytestmark = pytest.mark.slow


def on_ranks(ranks: int, task: str, folder: Path) -> Any:
    """Do a task on that many processes, and return what the first of them wrote."""
    processes.on_ranks(ranks, do, folder, task, ranks)
    return json.loads((folder / f"{task}.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    tiny_tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def differ(left: list[dict[str, float]], right: list[dict[str, float]]) -> float:
    """Return the largest relative difference of two trajectories."""
    assert [sorted(values) for values in left] == [sorted(values) for values in right]
    return max(
        abs(a[key] - b[key]) / (abs(a[key]) + 1e-6)
        for a, b in zip(left, right, strict=True)
        for key in a
    )


def test_every_combiner_agrees_with_one_process(folder: Path, tiny_tokenizer: Any) -> None:
    """Losses, norms, cosine and G-effect by layer, step by step, with uneven batches and shards."""
    sharded, whole = on_ranks(2, "trajectories", folder), trajectories(tiny_tokenizer, False)
    for name in RUNS:
        assert differ(whole[name], sharded[name]) < 1e-10, name


def test_references_are_sharded_as_the_model_is(folder: Path) -> None:
    """A copy of a model, before it is sharded or after, and the head that is kept with a cache."""
    for name, (difference, is_shard, apart) in on_ranks(2, "references", folder).items():
        assert difference < 1e-12, name
        assert is_shard, name
        assert apart, name


def test_a_run_goes_on_with_as_many_ranks_and_with_fewer(
    folder: Path, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    """GRU's running mean and AdamW's moments among the shards; the last model is written whole."""
    from safetensors.torch import load_file

    on_ranks(2, "cut", folder)
    kept = folder / "kept"
    shutil.copytree(folder / "checkpoints", kept)
    again = on_ranks(2, "again", folder)
    shutil.rmtree(folder / "checkpoints")
    kept.rename(folder / "checkpoints")
    alone = on_ranks(1, "alone", folder)
    whole = finish(tiny_tokenizer, tmp_path / "checkpoints", False, tmp_path / "whole")
    for resumed in (again, alone):
        assert differ(whole.trajectory, resumed["trajectory"]) < 1e-10
    assert not again["notes"]
    assert alone["notes"] == [
        "resumed at step 2 on 1 processes instead of 2: sums over them round otherwise"
    ]
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    for name in ("again", "alone"):
        written = load_file(folder / name / "model.safetensors")
        assert written.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(written[key], tensor, rtol=1e-10, atol=1e-12)
