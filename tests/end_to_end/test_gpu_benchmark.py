"""``benchmarks/gpu.py`` goes through every section here; what it cannot measure, it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_every_section_runs_on_a_cpu_and_says_what_needs_a_gpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--smoke", "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(out.read_text())
    found = {f"{one['section']}: {one['what']}": one for one in document["findings"]}
    assert len(found) == len(document["findings"])
    sections = {one["section"] for one in document["findings"]}
    assert sections == {"correctness", "steps", "synchronisations", "memory", "generation"}
    assert not [name for name, one in found.items() if one["note"].startswith("failed:")]
    assert [name for name, one in found.items() if one["note"] == "needs CUDA"] == [
        "correctness: float32 against the CPU: losses and norms",
        "correctness: float32 against the CPU: change of the weights",
        "correctness: float16 against float32",
        *(f"synchronisations: a step with {name}" for name in ("sum", "sago", "pcgrad", "cone")),
    ]
    bounded = {name: one["met"] for name, one in found.items() if one["met"] is not None}
    assert bounded == {
        "correctness: bfloat16 against float32: losses and norms": True,
        "correctness: a run and its repetition, with dropout": True,
        "correctness: a run and a resumed one, with dropout": True,
    }
    assert found["generation: transformers, drawn: tokens beside builtin's"]["value"] == 0
    for name, one in found.items():
        assert name.partition(": ")[2] in done.stdout
        assert one["value"] is not None or one["note"], name
