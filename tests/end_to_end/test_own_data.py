"""The README's recipe for one's own data, word for word, forgets on models of one's own."""

from __future__ import annotations

import csv
import re
import shlex
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


def commands() -> list[list[str]]:
    """Return the words of the README's commands on that recipe, without their comments."""
    text = README.read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(amnesis run forget.yaml .*?)```", text, re.DOTALL)
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def begin(name: str, rows: Any) -> None:
    """Finetune a model on rows and write them, as the README's reader has them in a folder."""
    architecture, config, rate = MODELS[name]
    shared = LLAMA if architecture == "llama" else {}
    amnesis.finetune(
        {
            "model": {
                "architecture": architecture,
                "config": {**shared, "initializer_range": 0.1, **config},
                "vocabulary": 400,
            },
            "benchmark": {"name": "own", "forget": rows[:4], "retain": rows[4:]},
            "sets": ["forget", "retain"],
            "training": {"steps": 80, "learning_rate": rate, "schedule": "stable_decay"},
        },
        "finetuned",
        device="cpu",
    )
    Path("finetuned/model").rename("my-model")
    for set_name, part in (("forget", rows[:4]), ("retain", rows[4:])):
        with Path(f"{set_name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["question", "answer"])
            writer.writeheader()
            writer.writerows(part)
    Path("forget.yaml").write_text(recipe(), encoding="utf-8")


def check_forgotten(folder: Path) -> None:
    """Check that a run reached the recipe's goal, and kept most of the rest."""
    results = Results.read(folder)
    assert results.before is not None
    assert results.after is not None
    assert results.before["forget/probability"] > 0.5  # it was known
    assert results.goal is not None
    assert results.goal.reached, results.goal.note
    assert results.after["forget/probability"] < 0.1
    assert results.after["retain/probability"] > 0.5 * results.before["retain/probability"]
    assert results.verdict is not None
    assert results.verdict.forgetting in ("forgotten", "too_much")


@pytest.mark.parametrize("name", MODELS)
def test_it_reaches_its_goal(
    name: str, qa_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begin(name, qa_rows)
    assert main(["run", "forget.yaml", "--out", "runs/first", "--device", "cpu"]) == 0
    check_forgotten(tmp_path / "runs/first")


def advised(folder: Path) -> list[str]:
    """Return what a run that missed its goal says to set: of several ways the rate, or the first."""
    results = Results.read(folder)
    assert results.goal is not None
    assert not results.goal.reached
    assert results.verdict is not None
    assert results.goal.advice in results.verdict.advice
    ways = re.findall(r"[a-z_.]+=[\w.+-]+", str(results.goal.advice))
    return [next((way for way in ways if "learning_rate" in way), ways[0])]


@pytest.mark.slow
def test_its_commands_work_and_where_a_run_falls_short_its_advice_does(
    qa_rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    begin("dropout", qa_rows)
    lines = commands()
    assert [words[1] for words in lines] == ["run", "run", "run", "compare", "ask"]
    for words in lines:
        assert main(words[1:]) == 0, " ".join(words)
    said = capsys.readouterr().out
    check_forgotten(tmp_path / "runs/first")
    assert "★ on the Pareto front" in said
    if not Results.read(tmp_path / "runs/second").goal.reached:  # type: ignore[union-attr]
        changes = advised(tmp_path / "runs/second")
        assert changes == ["combiner=null"]
        assert main(["run", "forget.yaml", "combiner=sago", *changes, "--out", "again"]) == 0
        check_forgotten(tmp_path / "again")
    slow = ["training.learning_rate=1e-5"]
    for attempt in range(3):  # what is advised may have to be followed more than once
        out = f"slow/{attempt}"
        assert main(["run", "forget.yaml", *slow, "--out", out]) == 0
        if Results.read(tmp_path / out).goal.reached:  # type: ignore[union-attr]
            break
        slow += advised(tmp_path / out)
    assert attempt > 0, "at a rate a hundred times too low nothing is forgotten"
    check_forgotten(tmp_path / out)
