"""``amnesis init``: a recipe for files as people have them, which passes ``--check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from amnesis.cli.app import main
from amnesis.errors import DataError
from amnesis.runs.recipe import Recipe
from amnesis_evaluation.commands.init.command import _text
from amnesis_evaluation.commands.init.looking import Columns, columns_of

HERE = Path("rows.csv")


@pytest.fixture
def place(tiny_folder: Path, tmp_path: Path, qa_rows: Any, monkeypatch: Any) -> Path:
    """A working directory with a model, and files with semicolons, umlauts and other names."""
    monkeypatch.chdir(tmp_path)
    for name, rows in (("vergessen", qa_rows[:3]), ("behalten", qa_rows[3:])):
        lines = [f'"{row["question"]}";"{row["answer"]} (Müller)"' for row in rows]
        (tmp_path / f"{name}.csv").write_text(
            "\n".join(["Frage;Antwort", *lines]), encoding="utf-8"
        )
    return tmp_path


FLAGS = ["--model", "model", "--forget", "vergessen.csv", "--retain", "behalten.csv"]


def test_flags_make_a_recipe_that_passes_its_check(place: Path, capsys: Any) -> None:
    assert main(["init", *FLAGS, "--device", "cpu"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "Frage, Antwort" in said
    assert "amnesis run recipe.yaml" in said
    recipe = Recipe.load("recipe.yaml")
    assert (recipe.template.question, recipe.template.answer) == ("Frage", "Antwort")  # type: ignore[union-attr]
    assert recipe.training.batch_size == 3
    assert recipe.training.learning_rate == "auto"
    assert recipe.until == {"forget/probability": {"below": 0.1}}, "it ends at a goal"
    text = (place / "recipe.yaml").read_text(encoding="utf-8")
    assert text.count("#") > 15, "commented"
    assert main(["run", "recipe.yaml", "--check", "--device", "cpu"]) == 0


def test_a_terminal_is_asked_and_what_is_named_is_not(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    asked: list[str] = []
    answers = {"model": "model", "forget": " vergessen.csv ", "keep": "behalten.csv"}

    def prompt(text: str) -> str:
        asked.append(text)
        return next(answer for word, answer in answers.items() if word in text)

    monkeypatch.setattr("typer.prompt", prompt)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert main(["init", "--retain", "behalten.csv", "--device", "cpu"]) == 0
    assert len(asked) == 2
    assert "vergessen.csv" in (place / "recipe.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (FLAGS[2:], "name --model: there is no terminal here to ask on"),
        ([*FLAGS[:2], *FLAGS[4:]], "name --forget"),
        ([*FLAGS, "--question", "frage"], "--question frage: did you mean 'Frage'"),
        ([*FLAGS[:4], "--retain", "behalten.cvs"], "rows are read from"),
        (["--model", "modle", *FLAGS[2:]], "modle: there is no such folder; in .: did you mean"),
        ([*FLAGS, "--facts", "facts.jsonl"], "facts.jsonl: has no column 'Frage'"),
        ([*FLAGS, "--objective", "wgaa"], "no objective is called 'wgaa'; did you mean 'wga'"),
        (["mine.yaml", *FLAGS], "mine.yaml: is there already; name another file, or say --overwr"),
        (["model", *FLAGS, "--overwrite"], "model: is there already"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    place: Path, words: list[str], said: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    (place / "facts.jsonl").write_text(json.dumps({"q": "a", "a": "b"}), encoding="utf-8")
    (place / "mine.yaml").write_text("seed: 3\n", encoding="utf-8")
    assert main(["init", *words, "--device", "cpu"]) == 2
    assert said in capsys.readouterr().err
    assert not (place / "recipe.yaml").exists()
    assert (place / "mine.yaml").read_text(encoding="utf-8") == "seed: 3\n"


def test_overwrite_replaces_a_recipe(place: Path) -> None:
    (place / "mine.yaml").write_text("seed: 3\n", encoding="utf-8")
    assert main(["init", "mine.yaml", *FLAGS, "--overwrite", "--device", "cpu"]) == 0
    assert Recipe.load("mine.yaml").model.path == "model"


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"question": "a?", "answer": "b"}], Columns(form="question_answer")),
        (
            [{"id": "1", "Prompt": "a", "completion": "b"}],
            Columns(form="question_answer", question="Prompt", answer="completion"),
        ),
        (
            [{"was": "Was?", "das": "Das."}],
            Columns(form="question_answer", question="was", answer="das"),
        ),
        ([{"text": "long"}], Columns(form="text")),
        ([{"id": 3, "story": "long"}], Columns(form="text", text="story")),
        ([{"messages": [{"role": "user", "content": "x"}]}], Columns(form="messages")),
    ],
)
def test_columns_are_known_by_name_or_by_what_they_hold(
    rows: list[dict[str, Any]], columns: Columns
) -> None:
    assert columns_of(rows, HERE, None, None) == columns


def test_columns_that_say_nothing_are_asked_for() -> None:
    rows = [{"x": "a", "y": "b", "z": "c"}]
    with pytest.raises(
        DataError, match=r"rows.csv: which column is asked.* It has x, y, z; say --qu"
    ):
        columns_of(rows, HERE, None, None)
    named = columns_of(rows, HERE, "z", "x")
    assert named == Columns(form="question_answer", question="z", answer="x")


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("template", [{}, {"format": "text", "text": "a: b # c"}])
def test_odd_names_and_every_branch_make_yaml(lora: bool, template: dict[str, Any]) -> None:
    odd = "a: 'b' \"c\" # ü.csv"
    text = _text(
        file="r.yaml", model=odd, forget=odd, retain=odd, holdout=odd if lora else None,
        facts=None if lora else odd, template=template, objective="npo", regularizer="kl",
        combiner="sago", batch_size=2, lora=lora, generate_rows=3,
        counts=dict.fromkeys(("forget", "retain", "holdout", "facts"), 2),
    )  # fmt: skip
    document = yaml.safe_load(text)
    assert document["model"] == document["benchmark"]["forget"] == odd
    assert document.get("template", {}) == template
    assert Recipe.parse(document).lora is not None or not lora
