"""Real TOFU text, shortened: a small model learns authors, forgets ten questions of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amnesis.cli.app import main

RECIPES = Path(__file__).resolve().parents[2] / "examples" / "recipes"
FORGET, RETAIN = 24, 72


@pytest.fixture(scope="module")
def some_of_tofu(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tofu")
    for name, rows in (
        ("forget05", FORGET),
        ("forget05_perturbed", FORGET),
        ("retain_perturbed", RETAIN),
    ):
        lines = (shared_data / "tofu" / f"{name}.json").read_text(encoding="utf-8").split("\n")
        (folder / f"{name}.json").write_text("\n".join(lines[:rows]), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_small_model_forgets_tofu_authors(some_of_tofu: Path, tmp_path: Path) -> None:
    data = f"benchmark.path={some_of_tofu}"
    target, out = tmp_path / "target", tmp_path / "out"
    finetune = ["finetune", str(RECIPES / "tofu-small-target.yaml"), data, "training.epochs=22"]
    assert main([*finetune, "--out", str(target), "--device", "cpu"]) == 0
    run = ["run", str(RECIPES / "tofu-small.yaml"), data, f"model.path={target / 'model'}"]
    changes = ["training.steps=50", "training.batch_size=8", "evaluate.generate_rows=8"]
    assert main([*run, *changes, "--out", str(out), "--device", "cpu"]) == 0
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    before, after = results["before"], results["after"]
    assert before["forget/extraction_strength"] >= 0.9
    assert after["forget/extraction_strength"] <= 0.15
    kept = after["retain/extraction_strength"] / before["retain/extraction_strength"]
    assert kept >= 0.85
