"""The README's recipe for one's own data, word for word, forgets on models of one's own."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from docs.generate.readme import README

import amnesis
from amnesis.cli.app import main
from amnesis.runs.results import Results

# A configuration and the rate at which it learns the rows by heart.
MODELS: dict[str, tuple[str, dict[str, Any], float]] = {
    "small": ("llama", {"hidden_size": 32, "intermediate_size": 64}, 1e-2),
    "wide": ("llama", {"hidden_size": 96, "intermediate_size": 192}, 2e-3),
    "dropout": ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 128}, 5e-3),
}
LLAMA = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}


def recipe() -> str:
    """Return the README's first recipe."""
    text = README.read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(model: my-model.*?)```", text, re.DOTALL)
    return str(block)


@pytest.mark.parametrize("name", MODELS)
def test_it_reaches_its_goal(
    name: str, qa_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    architecture, config, rate = MODELS[name]
    shared = LLAMA if architecture == "llama" else {}
    amnesis.finetune(
        {
            "model": {
                "architecture": architecture,
                "config": {**shared, "initializer_range": 0.1, **config},
                "vocabulary": 400,
            },
            "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
            "sets": ["forget", "retain"],
            "training": {"steps": 80, "learning_rate": rate, "schedule": "stable_decay"},
        },
        "finetuned",
        device="cpu",
    )
    Path("finetuned/model").rename("my-model")
    for set_name, rows in (("forget", qa_rows[:4]), ("retain", qa_rows[4:])):
        with Path(f"{set_name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["question", "answer"])
            writer.writeheader()
            writer.writerows(rows)
    Path("forget.yaml").write_text(recipe(), encoding="utf-8")
    assert main(["run", "forget.yaml", "--out", "runs/first", "--device", "cpu"]) == 0
    results = Results.read(tmp_path / "runs/first")
    assert results.before is not None
    assert results.after is not None
    assert results.before["forget/probability"] > 0.5  # it was known
    assert results.goal is not None
    assert results.goal.reached, results.goal.note
    assert results.after["forget/probability"] < 0.1
    assert results.after["retain/probability"] > 0.5 * results.before["retain/probability"]
    assert results.verdict is not None
    assert results.verdict.forgetting in ("forgotten", "too_much")
