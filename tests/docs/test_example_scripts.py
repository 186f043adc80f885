"""The scripts and the recipe of examples, run small: each does what it says that it does."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

import amnesis
from amnesis.discovery.registry import default_registry

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
Script = Callable[..., str]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    """Return a function that runs an example with arguments, and returns what it printed."""

    def script(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return script


def taught(folder: Path, model: Path, benchmark: dict[str, Any], template: dict[str, Any]) -> Path:
    """Train a model on all that a benchmark forgets and keeps; return its folder."""
    recipe = {
        "model": str(model),
        "benchmark": benchmark,
        "template": template,
        "sets": ["forget", "retain"],
        "training": {"epochs": 40, "batch_size": 8, "learning_rate": 1e-2},
    }
    amnesis.finetune(recipe, folder, device="cpu")
    return folder / "model"


@pytest.mark.slow
def test_a_method_in_one_file_trains(script: Script, tiny_folder: Path, tmp_path: Path) -> None:
    people = runpy.run_path(str(EXAMPLES / "own_method.py"))["PEOPLE"]
    model = taught(tmp_path / "taught", tiny_folder, people, {"max_length": 120})
    said = script("own_method.py", "--model", model, "--steps", 20)
    names = [line.partition(":")[0] for line in said.splitlines()]
    assert names == ["forget/probability", "retain/probability"]
    before, after = (float(part.split()[0]) for part in said.split(": ")[1].split(", "))
    assert before > 0.3
    assert after < before / 2


def test_its_objective_and_combiner_are_their_formulas() -> None:
    import torch

    shown = runpy.run_path(str(EXAMPLES / "own_method.py"))
    logps = torch.tensor([[0.5, 0.25]], dtype=torch.float64).log()
    loss = shown["Fading"](k=0.8).loss(logps, torch.ones(1, 2, dtype=torch.bool))
    expected = -torch.tensor([1 - 0.8 * 0.5, 1 - 0.8 * 0.25], dtype=torch.float64).log().mean()
    torch.testing.assert_close(loss, expected)
    f, r = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 1.0])
    (long,) = shown["NoLonger"](ratio=2.0).combine([f], [r])
    torch.testing.assert_close(long, f * 2 / 5 + r)
    (short,) = shown["NoLonger"](ratio=10.0).combine([f], [r])
    torch.testing.assert_close(short, f + r)


@pytest.mark.slow
def test_methods_are_compared_and_runs_that_are_there_are_not_repeated(
    script: Script, tiny_folder: Path, tmp_path: Path
) -> None:
    words = ("--out", tmp_path / "out", "--model", tiny_folder, "--objectives", "ga,rmu")
    said = script("all_methods.py", *words, "--steps", 2)
    assert [line.partition(":")[0] for line in said.splitlines()] == ["ga", "rmu", "plot"]
    found = json.loads((tmp_path / "out/all_methods.json").read_text(encoding="utf-8"))
    assert set(found) == {"ga", "rmu"}
    assert (tmp_path / "out/all_methods.png").stat().st_size > 5_000
    kept = (tmp_path / "out/ga-sago/results.json").read_bytes()
    assert script("all_methods.py", *words, "--steps", 2) == said
    assert (tmp_path / "out/ga-sago/results.json").read_bytes() == kept


def test_every_objective_can_be_made_or_says_what_it_lacks(tmp_path: Path) -> None:
    shown = runpy.run_path(str(EXAMPLES / "all_methods.py"))
    ours = {
        entry.name
        for entry in default_registry()
        if entry.kind == "objective"
        and entry.plugin.distribution == "amnesis"
        and not entry.alias_of
    }
    names = set(shown["objectives"]())
    assert names | set(shown["NEEDS_MORE"]) == ours
    for name in names:
        recipe = amnesis.Recipe.parse(shown["recipe_of"](name, tmp_path, "sum", 1, 0))
        chosen: Any = dict(recipe.objective)  # type: ignore[arg-type]
        objective = amnesis.create("objective", **chosen)
        assert not objective.columns, f"{name} needs columns: name it in NEEDS_MORE"


@pytest.mark.slow
def test_the_person_is_forgotten_by_an_adapter(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    shown = amnesis.Recipe.load(EXAMPLES / "forget-a-person/recipe.yaml").model_dump(mode="json")
    template = {"question": "Frage", "answer": "Antwort", "max_length": 120}
    model = taught(tmp_path / "taught", tiny_folder, shown["benchmark"], template)
    few = ["training.steps=10", "training.learning_rate=1e-2", "template.max_length=120"]
    few += [f"model={model}", "evaluate.generate_rows=1", "evaluate.max_new_tokens=4"]
    recipe = amnesis.Recipe.load(EXAMPLES / "forget-a-person/recipe.yaml", few)
    result = amnesis.run(recipe, tmp_path / "run", device="cpu").results
    assert result.before is not None
    assert result.after is not None
    assert result.before["forget/probability"] > 0.5
    assert result.after["forget/probability"] < 0.7 * result.before["forget/probability"]
    answers = parquet.read_table(tmp_path / "run/answers.parquet").column("reference").to_pylist()
    assert "Jürgen Möwenthal wurde in Görlitz geboren." in answers
    assert 'Er schrieb "Das große Läuten"; es erschien 1988.' in answers
    assert (tmp_path / "run/model/adapter_model.safetensors").is_file()
    rows = json.loads((tmp_path / "run/results.json").read_text(encoding="utf-8"))["data"]
    assert rows["forget"]["examples"] == 8
    assert rows["retain"]["examples"] == 12


def test_every_example_is_in_the_list() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.suffix != ".png" and path.name not in ("README.md", "__pycache__"):
            assert f"`{path.name}" in listed, f"examples/README.md does not name {path.name}"
