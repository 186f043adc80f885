"""A sweep that is killed goes on; several processes, or a cluster's workers, share it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from amnesis.cli.app import main


@pytest.fixture
def sweep_file(tiny_folder: Path, qa_rows: Any, tmp_path: Path) -> Path:
    recipe = {
        "model": str(tiny_folder),
        "objective": "npo",
        "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
        "training": {"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "save_every": 2},
        "evaluate": {"metrics": ["probability"], "bootstrap": 0, "keep_answers": False},
    }
    document = {
        "recipe": recipe,
        "space": {"training.learning_rate": [1e-4, 1e-3, 3e-3]},
        "storage": "journal",
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def started(file: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "amnesis", "sweep", str(file), "--out", str(out)]
    return subprocess.Popen(
        [*line, "--device", "cpu", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def runs_in(out: Path) -> dict[str, tuple[int, Any]]:
    """When each run's results were written, and what they are, by its folder's name."""
    return {
        str(file.parent.relative_to(out)): (
            file.stat().st_mtime_ns,
            json.loads(file.read_text(encoding="utf-8"))["after"],
        )
        for file in sorted(out.rglob("results.json"))
    }


def test_a_killed_sweep_goes_on_and_repeats_no_run(sweep_file: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    process = started(sweep_file, out, "seeds=[0,1]")
    moment = out / "trials" / "0001" / "seed-0" / "checkpoints"
    while process.poll() is None and not list(moment.glob("0*")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = runs_in(out)
    assert 2 <= len(before) < 6
    for folder in (out, whole):
        assert main(["sweep", str(sweep_file), "seeds=[0,1]", "--out", str(folder)]) == 0
    after = runs_in(out)
    assert len(after) == 6
    assert {name: after[name] for name in before} == before
    uninterrupted = {name: values for name, (_, values) in runs_in(whole).items()}
    assert {name: values for name, (_, values) in after.items()} == uninterrupted


def test_two_processes_share_a_sweep(sweep_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    said = [ended(process)[0] for process in [started(sweep_file, out) for _ in range(2)]]
    trials = [
        line.partition(" (")[0]
        for one in said
        for line in one.splitlines()
        if re.match(r"trial \d+ \(.*\): ", line)
    ]
    assert sorted(trials) == [f"trial {number}" for number in range(3)]
    assert len(runs_in(out)) == 3


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_a_local_ray_cluster_does_the_same(sweep_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "ray"
    ended(started(sweep_file, out, "--engine", "ray", "--workers", "2"))
    found = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    assert [trial["state"] for trial in found["trials"]] == ["finished"] * 3
    assert len(runs_in(out)) == 3


def test_the_ranks_of_a_launcher_run_each_trial_together(sweep_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "ranks"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    line = [sys.executable, *launcher, "amnesis", "sweep", str(sweep_file), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*line, "--device", "cpu", "space={objective.beta: [0.1]}"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert len(runs_in(out)) == 1
    assert done.stdout.count("everything is in") == 1
