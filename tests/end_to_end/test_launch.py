"""The launchers' files in examples/launch start two processes that do what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from tests.end_to_end.sharding_cli import carry_out
from tests.processes import on_ranks

from amnesis import Recipe
from amnesis.cli.app import main

LAUNCH = Path(__file__).resolve().parents[2] / "examples" / "launch"
CONFIGURATIONS = sorted(
    path.name for path in LAUNCH.glob("*.yaml") if "compute_" in path.read_text()
)
RECIPES = ["full.yaml", "lora.yaml"]


@pytest.fixture
def overrides(tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path) -> list[str]:
    """What makes of the recipes for large models one that a CPU runs in seconds, in float64."""
    tiny_llama.double().save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    benchmark = {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[3:]}
    return [
        f"model={tmp_path / 'base'}",
        f"benchmark={json.dumps(benchmark)}",
        *("template={}", "until=null", "seed=1", "evaluate.bootstrap=0", "evaluate.every=2"),
        *("training.steps=4", "training.batch_size=3", "training.micro_batch_size=2"),
        *("training.learning_rate=1e-3", "training.save_every=2"),
    ]


def started(line: list[str], **environment: str) -> None:
    """Run a command to its end."""
    whole = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **environment}
    done = subprocess.run(line, capture_output=True, text=True, env=whole, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return found


def same(one: Path, two: Path) -> None:
    """Compare a run on one process with the same one on two."""
    first, second = results(one), results(two)
    assert len(first["trajectory"]) == len(second["trajectory"]) == 4
    for a, b in zip(first["trajectory"], second["trajectory"], strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - {"gradients/conflict_share"}:
            assert a[name] == pytest.approx(b[name], rel=1e-9, abs=1e-12), name
    for phase in ("before", "after"):
        assert first[phase] == pytest.approx(second[phase], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_accelerate_reads_its_configurations(name: str) -> None:
    """With no key that it does not know, and no gradients that it would merge."""
    configuration = load_config_from_file(str(LAUNCH / name))
    assert configuration.num_machines == 1
    fsdp = getattr(configuration, "fsdp_config", None) or {}
    assert fsdp.get("fsdp_version", 2) == 2
    assert configuration.mixed_precision == "no"


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_are_whole(name: str) -> None:
    recipe = Recipe.load(LAUNCH / name)
    assert recipe.until is not None
    assert recipe.training.save_every is not None


@pytest.mark.slow
def test_two_processes_that_accelerate_starts(overrides: list[str], tmp_path: Path) -> None:
    run = ["run", str(LAUNCH / "lora.yaml"), *overrides, "--device", "cpu", "--out"]
    assert main([*run, str(tmp_path / "one")]) == 0
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    started([*launch, str(LAUNCH / "cpu.yaml"), "-m", "amnesis", *run, str(tmp_path / "two")])
    same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_that_shard_the_model(
    name: str, overrides: list[str], tmp_path: Path
) -> None:
    """As ``fsdp2.yaml`` shards it, from the command line to the model that is written whole."""
    run = ["run", str(LAUNCH / name), *overrides, "--device", "cpu", "--out"]
    assert main([*run, str(tmp_path / "one")]) == 0
    settings = yaml.safe_load((LAUNCH / "fsdp2.yaml").read_text(encoding="utf-8"))["fsdp_config"]
    on_ranks(2, carry_out, tmp_path, [*run, str(tmp_path / "two")], 2, settings)
    same(tmp_path / "one", tmp_path / "two")
    files = [tmp_path / out / "model" for out in ("one", "two")]
    assert [path.name for path in sorted(files[0].iterdir())] == [
        path.name for path in sorted(files[1].iterdir())
    ]


@pytest.mark.slow
def test_the_job_for_slurm(overrides: list[str], tmp_path: Path) -> None:
    """With stand-ins for what only a cluster has: a run that is queued twice goes on."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, body in (("srun", 'exec "$@"'), ("scontrol", "echo localhost; echo elsewhere")):
        (commands / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (commands / name).chmod(0o755)
    recipe = yaml.safe_load((LAUNCH / "full.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    changed = Recipe.read(path, overrides)
    path.write_text(yaml.safe_dump(changed), encoding="utf-8")
    environment = {
        "PATH": os.pathsep.join((str(commands), str(Path(sys.executable).parent), os.environ["PATH"])),
        "SLURM_JOB_NODELIST": "localhost", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": "7",
    }  # fmt: skip
    out = tmp_path / "out"
    for _ in range(2):
        started(["bash", str(LAUNCH / "slurm.sh"), str(path), str(out)], **environment)
    assert len(results(out)["trajectory"]) == 4
