"""``amnesis recipe``: keys explained, and a schema that takes what a recipe takes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from amnesis.cli.app import main
from amnesis.cli.recipe import Of, example, keys_of, schema_of
from amnesis.discovery.registry import default_registry
from amnesis.errors import RecipeError
from amnesis.runs.recipe import FinetuneRecipe, Recipe, set_key

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "examples").rglob("*.yaml"))
RECIPES = [file for file in FILES if "\nmodel:" in file.read_text(encoding="utf-8")]
SMALL = {"model": "x", "objective": "ga", "benchmark": "fictional"}


def of(document: dict[str, Any]) -> Of:
    return Of.finetune if "sets" in document else Of.run


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_schema_takes_every_recipe_of_ours(path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    jsonschema.validate(document, schema_of(of(document), default_registry()))


@pytest.mark.parametrize(
    ("changes", "takes"),
    [
        ({}, True),
        ({"forget": "rows.csv", "retain": [{"path": "a.csv", "weight": 2}, "b.csv"]}, True),
        ({"objective": [{"name": "npo", "weight": {0: 1}}, "ga"], "probes": ["g_effect"]}, True),
        ({"training": {"precision": "bf16"}, "model": {"path": "x", "dtype": "fp16"}}, True),
        ({"combiner": None, "lora": {"r": 4}}, True),
        ({"objectve": "ga"}, False),
        ({"objective": "gaa"}, False),
        ({"objective": {"beta": 1}}, False),
        ({"training": {"stepps": 1}}, False),
        ({"training": {"precision": "int3"}}, False),
        ({"benchmark": None}, False),
        ({"forget": {"pth": "x"}}, False),
    ],
)
def test_the_schema_takes_and_refuses_what_a_recipe_does(
    changes: dict[str, Any], takes: bool
) -> None:
    document = {**SMALL, **changes}
    valid = jsonschema.Draft202012Validator(schema_of(Of.run, default_registry())).is_valid
    assert valid(json.loads(json.dumps(document))) is takes


def test_the_schema_is_printed_of_either_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    for line, key in (
        (["recipe", "--schema"], "objective"),
        (["recipe", "finetune", "--schema"], "sets"),
    ):
        assert main(line) == 0
        assert (
            key
            in json.loads(capsys.readouterr().out)["required" if key == "sets" else "properties"]
        )
    assert main(["recipe", "--schema", "finetune"]) == 0
    assert "sets" in json.loads(capsys.readouterr().out)["properties"]


@pytest.mark.parametrize("key", keys_of(Of.run))
def test_every_key_is_explained_with_an_example_that_a_recipe_takes(
    key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe", "--explain", key]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{key}: ")
    (line,) = [text for text in said if text.startswith("  example: ")]
    document: dict[str, Any] = {**SMALL, "regularizer": "nll"}
    if key.startswith("retrained"):
        document["retrained"] = "x"
    if key == "procedure":
        del document["objective"], document["regularizer"]
    if key.endswith(("quantize", "save", "dtype")):
        document["lora"] = {"r": 4}
    for change in shlex.split(line.removeprefix("  example: ")):
        place, _, text = change.partition("=")
        set_key(document, place, yaml.safe_load(text), change)
    try:
        Recipe.parse(document)
    except RecipeError as error:
        refused = str(error)
    else:
        refused = ""
    # What does not fit beside the others, as a source with two places, is of its type all the same.
    assert "Input should" not in refused, refused
    assert "unknown" not in refused, refused


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["training.learning_rate"], ["float", "> 0", "the highest of the run"]),
        (["learning_rate"], ["training.learning_rate: "]),
        (["lora"], ["has: r, alpha"]),
        (["combiner"], ["names: ", "sago", "example: combiner="]),
        (["stop_when.VALUE.above"], ["example: stop_when.forget/loss.above=0.5"]),
    ],
)
def test_what_is_said_of_a_key(
    line: list[str], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe", "--explain", *line]) == 0
    text = capsys.readouterr().out
    assert all(words in text for words in said), text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--explain", "training.lerning_rate"], "did you mean 'training.learning_rate'"),
        (["--explain", "path"], "say which: model.path, forget.path"),
        (["--explain", "seed", "--schema"], "not both"),
        (["sweep"], "'sweep' is not one of"),
    ],
)
def test_what_is_wrong_is_said(
    line: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe", *line]) == 2
    assert said in capsys.readouterr().err


def test_every_key_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "finetune"]) == 0
    listed = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert set(FinetuneRecipe.model_fields) <= set(listed)
    assert "training.steps" in listed


def test_an_example_of_a_component_stands_alone() -> None:
    registry = default_registry()
    name = example("objective", Recipe.model_fields["objective"], registry).partition("=")[2]
    registry.create("objective", name)
