"""Checkpoints: what of them is ours comes back as it was; a damaged one is passed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from amnesis.errors import DataError
from amnesis.training.checkpoints import (
    RunState,
    TrajectoryFile,
    latest,
    staged,
    step_of,
    take_up,
    trainer_folder,
)

STATE = RunState(
    trajectory=[{"step": 1, "forget/loss": 0.1 + 0.2}, {"step": 4, "forget/loss": 1e-300}],
    notes=["checkpoint 00000002 is damaged: passed over", "«é»"],
    probes={"states": [None, {"seen": [1, 2.5]}], "failed": [0]},
    limits_passed={"forget/loss": 2, "g_effect/retain_over_unlearn": 0},
    data="0123abcd",
    model="4567ef",
    choices={"objective": "1.0 * WGA(beta=1.0)", "training.steps": "4"},
    processes=1,
    memory={},
    terms={"forget": [{"state": {"step": 2.0}}]},
)


def log_of(folder: Path) -> TrajectoryFile:
    return TrajectoryFile(folder / "trajectory.jsonl")


def test_a_run_s_state_comes_back_as_it_was(tmp_path: Path) -> None:
    STATE.write(tmp_path, log_of(tmp_path))
    assert RunState.read(tmp_path, log_of(tmp_path)) == STATE


def test_a_trajectory_is_appended_and_each_checkpoint_has_its_own_part(tmp_path: Path) -> None:
    steps = [{"step": k, "forget/loss": 1 / (k + 3)} for k in range(9)]
    log, file = log_of(tmp_path), tmp_path / "trajectory.jsonl"
    parts = [log.append(steps[:count]) for count in (2, 2, 5)]
    assert [part["size"] for part in parts] == [parts[0]["size"]] * 2 + [file.stat().st_size]
    inode, kept = file.stat().st_ino, file.read_bytes()
    for count, part in zip((2, 2, 5), parts, strict=True):
        assert log_of(tmp_path).read(**part) == (steps[:count], [])
    assert file.read_bytes() == kept  # reading changes nothing
    resumed = log_of(tmp_path)
    resumed.read(**parts[0])
    other = [*steps[:2], *({**values, "forget/loss": 0.5} for values in steps[2:])]
    later = resumed.append(other)  # what was written beyond the checkpoint is of no run
    assert log_of(tmp_path).read(**later) == (other, [])
    assert file.stat().st_ino == inode
    assert len(file.read_text(encoding="utf-8").splitlines()) == 9


@pytest.mark.parametrize("damage", ["missing", "short", "one bit"])
def test_a_run_goes_on_without_values_that_were_damaged(tmp_path: Path, damage: str) -> None:
    steps: list[dict[str, float]] = [{"step": k, "forget/loss": 0.25} for k in range(3)]
    part = log_of(tmp_path).append(steps)
    file = tmp_path / "trajectory.jsonl"
    if damage == "missing":
        file.unlink()
    elif damage == "short":
        file.write_bytes(file.read_bytes()[:-3])
    else:
        file.write_bytes(file.read_bytes().replace(b"0.25", b"0.75", 1))
    log = log_of(tmp_path)
    trajectory, (note,) = log.read(**part)
    assert trajectory == []
    assert note == f"{file}: is damaged: the values of the steps so far are lost"
    assert log_of(tmp_path).read(**log.append([{"step": 4}])) == ([{"step": 4}], [])


@pytest.mark.parametrize("content", ["{", "[]", '{"trajectory": []}', '{"surplus": 1}', "\x00"])
def test_a_state_that_is_not_what_this_version_writes_is_refused(
    tmp_path: Path, content: str
) -> None:
    STATE.write(tmp_path, log_of(tmp_path))
    (tmp_path / "amnesis.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"amnesis.json: is damaged, or of another version"):
        RunState.read(tmp_path, log_of(tmp_path))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_the_combiner_remembers_comes_back_to_the_bit(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    memory = {"layer.weight": torch.randn(3, 4, dtype=dtype).T, "bias": torch.randn(2, dtype=dtype)}
    assert not memory["layer.weight"].is_contiguous()
    replace(STATE, memory=memory).write(tmp_path, log_of(tmp_path))
    read = RunState.read(tmp_path, log_of(tmp_path))
    assert read.memory.keys() == memory.keys()
    for name, tensor in memory.items():
        assert read.memory[name].dtype == dtype
        assert torch.equal(read.memory[name], tensor)
    assert replace(read, memory={}) == STATE


def test_what_it_began_with_is_gone_on_with(tmp_path: Path) -> None:
    STATE.check(tmp_path, data="0123abcd", model="4567ef", choices=STATE.choices)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": "9999"}, "over other rows: resume with the data (and template)"),
        ({"model": "9999"}, "of another model: resume with the model that it began with"),
        ({"processes": 2}, "on 2 processes, not 1: "),
        (
            {"choices": {**STATE.choices, "training.steps": "8"}},
            "with training.steps 8, not 4: resume with what it began with",
        ),
        ({"choices": {}}, "with objective none, not 1.0 * WGA(beta=1.0): resume with what"),
    ],
)
def test_what_it_did_not_begin_with_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError) as raised:
        replace(STATE, **change).check(
            tmp_path, data="0123abcd", model="4567ef", choices=STATE.choices
        )
    assert str(raised.value).startswith(f"{tmp_path}: was written by a run {said}")
    assert str(raised.value).endswith(", or start anew in another folder")


def write(folder: Path, step: int, keep: int = 2) -> None:
    with staged(folder, step, keep) as staging:
        inner = staging / f"checkpoint-{step}"
        inner.mkdir()
        replace(STATE, trajectory=[{"step": step}]).write(inner, log_of(inner))


def test_the_newest_checkpoints_stay_and_the_last_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert latest(folder) == (None, [])
    for step in (2, 4, 10):
        write(folder, step)
    newest, notes = latest(folder)
    assert newest is not None
    assert notes == []
    assert step_of(newest) == 10
    inner = trainer_folder(newest)
    assert RunState.read(inner, log_of(inner)).trajectory == [{"step": 10}]
    assert [step_of(path) for path in sorted(folder.iterdir())] == [4, 10]


def test_one_that_was_not_finished_is_passed_over_and_replaced(tmp_path: Path) -> None:
    write(tmp_path, 2)
    with pytest.raises(KeyboardInterrupt), staged(tmp_path, 4, 2) as staging:
        (staging / "half").write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    newest, (note,) = latest(tmp_path)
    assert newest is not None
    assert step_of(newest) == 2
    assert note == "checkpoint 00000004.partial was not finished: passed over"
    write(tmp_path, 4)
    newest, notes = latest(tmp_path)
    assert newest is not None
    assert (step_of(newest), notes) == (4, [])
    assert not list(newest.rglob("half"))


@pytest.mark.parametrize(
    "damage", ["shorter", "one bit", "missing", "unsealed", "seal torn", "seal of another kind"]
)
def test_one_that_is_damaged_is_passed_over_with_a_note(tmp_path: Path, damage: str) -> None:
    write(tmp_path, 2)
    write(tmp_path, 4)
    file = tmp_path / "00000004" / "checkpoint-4" / "amnesis.json"
    seal = tmp_path / "00000004" / "complete.json"
    if damage == "shorter":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "one bit":
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    elif damage == "missing":
        file.unlink()
    elif damage == "unsealed":
        seal.unlink()
    elif damage == "seal of another kind":
        seal.write_text('["checkpoint-4/amnesis.json"]', encoding="utf-8")
    else:
        seal.write_bytes(seal.read_bytes()[:-5])
    newest, (note,) = latest(tmp_path)
    assert newest is not None
    assert step_of(newest) == 2
    assert note.startswith("checkpoint 00000004 is damaged (")
    assert note.endswith("): passed over")
    assert ("complete.json" if "seal" in damage else "checkpoint-4/amnesis.json") in note


def test_a_run_that_goes_on_clears_up_after_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of a checkpoint, before it deletes the old ones, and while it does so."""
    for step in (2, 4):
        write(tmp_path, step)
    with monkeypatch.context() as killed:
        killed.setattr("amnesis.training.checkpoints._discard", lambda *_: None)
        write(tmp_path, 6)
    with pytest.raises(KeyboardInterrupt), staged(tmp_path, 8, 2):
        raise KeyboardInterrupt
    (tmp_path / "00000001.discarded").mkdir()
    newest, (note,) = take_up(tmp_path, 2)
    assert newest == tmp_path / "00000006"
    assert "00000008.partial was not finished" in note
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000004", "00000006"]


def test_what_a_run_goes_on_from_outlives_damaged_ones_after_it(tmp_path: Path) -> None:
    for step in (2, 4):
        write(tmp_path, step)
    (tmp_path / "00000004" / "complete.json").unlink()
    newest, _ = take_up(tmp_path, 1)
    assert newest == tmp_path / "00000002"
    assert step_of(newest) == 2


def test_one_that_is_deleted_in_part_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (2, 4):
        write(tmp_path, step)

    def killed(folder: Path, **_: Any) -> None:
        if folder.is_dir() and folder.suffix != ".partial":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("shutil.rmtree", killed)
        write(tmp_path, 6, keep=1)
    assert take_up(tmp_path, 2) == (tmp_path / "00000006", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000004", "00000006"]
