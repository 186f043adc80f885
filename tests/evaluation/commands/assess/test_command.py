"""`amnesis assess` through the command line, on a model that knows its rows and one that does not."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.evaluation.pages.browser import CHROMIUM, browser
from tests.evaluation.pages.looks import check_everywhere
from tests.evaluation.pages.reading import Reader, all_numbers

from amnesis.cli.app import main
from amnesis.errors import RecipeError
from amnesis_evaluation.commands.assess.record import Assessment
from amnesis_evaluation.evaluator.evaluate import example_values
from amnesis_evaluation.reports.stored import load_evaluation

Answer = tuple[int, str, str]
Command = Callable[..., Answer]


@pytest.fixture
def command(world: Path, capsys: Any) -> Command:
    """Return a function that runs `amnesis assess` and gives exit code, stdout and stderr."""

    def command(model: str, *options: Any) -> Answer:
        code = main(["assess", str(world / model), "--device", "cpu", *map(str, options)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def sets(world: Path, *names: str) -> list[str]:
    return [part for name in names for part in (f"--{name}", str(world / f"{name}.jsonl"))]


def refused(answer: Answer, *said: str) -> None:
    code, out, error = answer
    assert (code, out) == (2, "")
    assert error.count("\n") == 1
    assert all(part in error for part in said), error


@pytest.fixture(scope="module")
def assessed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one whole assessment, with trials of three candidates."""
    out = tmp_path_factory.mktemp("assessed") / "out"
    code = main(
        ["assess", str(world / "model"), *sets(world, "forget", "retain", "holdout"), "--device",
         "cpu", "--candidates", "wga+nll,npo+kl,wga:beta=1+nll", "--steps", "8", "--out", str(out)]
    )  # fmt: skip
    assert code == 0
    return out


def test_a_model_that_knows_is_told_so_and_gets_a_recipe(assessed: Path, world: Path) -> None:
    record = json.loads((assessed / "assess.json").read_text(encoding="utf-8"))
    assert Assessment.model_validate(record).knowledge.level == "known"
    knowledge = record["knowledge"]
    assert knowledge["sentence"].startswith("The model knows it: 4 of 4 rows come back")
    assert knowledge["memorised"]["rows"] == knowledge["memorised"]["of"] == 4
    assert 0 < knowledge["memorised"]["interval"][0] < knowledge["memorised"]["interval"][1] == 1
    assert knowledge["values"]["mia_loss"] == 1
    assert {one["row"] for one in knowledge["best"]} == {0, 1, 2, 3}
    assert record["rows"] == {"forget": 4, "retain": 4, "holdout": 3}
    assert record["overlap"]["exact"] == record["overlap"]["near"] == []
    assert -1 <= record["alignment"]["cosine"] <= 1
    methods = record["methods"]
    # beta is 1 by default: the same method twice is said once, and in the order of the command.
    assert ["wga+nll", "wga:beta=1+nll"] in [one["names"] for one in methods["ranking"]]
    ratios = [one["ratio"] for one in methods["ranking"]]
    assert ratios == sorted(ratios)
    assert methods["best"] == methods["ranking"][0]["names"][0]
    assert len(methods["range_test"]) > 2
    assert methods["range_test"][0]["rate"] == 0
    assert all(
        (assessed / name).stat().st_mode & 0o77 == 0
        for name in ("assess.html", "assess.json", "recipe.yaml")
    )


def test_its_recipe_is_one_that_a_run_takes(assessed: Path, world: Path, capsys: Any) -> None:
    record = json.loads((assessed / "assess.json").read_text(encoding="utf-8"))
    recipe = yaml.safe_load((assessed / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe == record["recipe"]
    assert recipe["training"]["learning_rate"] == record["methods"]["learning_rate"]
    assert recipe["model"] == str(world / "model")
    assert recipe["benchmark"]["holdout"] == str(world / "holdout.jsonl")
    assert recipe["lora"] == {"r": 16, "alpha": 32}
    goal = recipe["until"]["forget/probability"]["below"]
    values = record["knowledge"]["values"]
    assert values["holdout/probability"] < goal < values["forget/probability"]
    assert main(["run", str(assessed / "recipe.yaml"), "--check", "--device", "cpu"]) == 0
    assert "steps, 4 forget and 4 retain rows" in " ".join(capsys.readouterr().out.split())


def spreadsheets(world: Path, folder: Path, question: str, answer: str) -> list[str]:
    """Write the sets as a spreadsheet does, semicolons and a first column of numbers; options."""
    options = []
    for name in ("forget", "retain"):
        lines = (world / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        file = folder / f"{name}.csv"
        with file.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.writer(opened, delimiter=";")
            writer.writerow(["nr", question, answer])
            writer.writerows([k, r["question"], r["answer"]] for k, r in enumerate(rows))
        options += [f"--{name}", str(file)]
    return options


@pytest.mark.parametrize("named", [False, True])
def test_columns_of_other_names_get_a_recipe_too(
    world: Path, command: Command, tmp_path: Path, named: bool, capsys: Any
) -> None:
    options = spreadsheets(world, tmp_path, "Frage", "was sie sagt" if named else "Antwort")
    if named:
        fields = "fields: {question: Frage, answer: was sie sagt}"
        options[1::2] = [f"{{path: {file}, {fields}}}" for file in options[1::2]]
    out = tmp_path / "recipe.yaml"
    trials = ["--candidates", "wga+nll", "--steps", "4", "--out", out]
    code, said, error = command("model", *options, *trials)
    assert code == 0, error
    assert ("the columns are read as question_answer: Frage, Antwort" in said) == (not named)
    recipe = yaml.safe_load(out.read_text(encoding="utf-8"))
    assert recipe["benchmark"]["forget"] == str(tmp_path / "forget.csv")
    names = (recipe["template"]["question"], recipe["template"]["answer"])
    assert names == ("Frage", "was sie sagt" if named else "Antwort")
    assert main(["run", str(out), "--check", "--device", "cpu"]) == 0
    assert "4 forget and 4 retain rows" in " ".join(capsys.readouterr().out.split())


def test_columns_that_could_be_anything_are_asked_for(
    world: Path, command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("nr;here;there\n1;a b c;d e f\n2;g h i;j k l\n", encoding="utf-8")
    answer = command("model", "--forget", file)
    refused(answer, "which column is asked", "nr, here, there", "{path: FILE, fields: {question")


@pytest.mark.slow
def test_its_recipe_forgets_and_keeps_the_rest(assessed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["evaluate.metrics=[probability, extraction_strength]", "evaluate.bootstrap=0"]
    recipe = str(assessed / "recipe.yaml")
    assert main(["run", recipe, *words, "--out", str(out), "--device", "cpu"]) == 0
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert results["after"]["forget/probability"] < 0.3 * results["before"]["forget/probability"]
    assert results["after"]["retain/probability"] > 0.8 * results["before"]["retain/probability"]


def test_every_number_on_the_page_is_in_the_record(assessed: Path) -> None:
    text = (assessed / "assess.html").read_text(encoding="utf-8")
    page = Reader(text)
    record = json.loads((assessed / "assess.json").read_text(encoding="utf-8"))
    numbers = all_numbers(record)
    assert page.unbalanced == []
    assert len(page.numbers) > 40
    assert [shown for value, shown in page.numbers if value not in numbers] == []
    assert "for your eyes alone" in page.text
    assert "The Salt Orchard" in page.text
    for part in ("knowledge", "alignment", "overlap", "methods"):
        assert record[part]["sentence"] in page.text
    assert "wga+nll = wga:beta=1+nll" in page.text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_the_page_fits_any_window(assessed: Path, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as chromium:
        check_everywhere(chromium, assessed / "assess.html", texts=100)


def test_the_numbers_are_those_of_an_evaluation(
    assessed: Path, world: Path, tmp_path: Path
) -> None:
    """The same metrics by `amnesis evaluate`, which computes them through a benchmark."""
    paths = {name: str(world / f"{name}.jsonl") for name in ("forget", "retain", "holdout")}
    hyper = [part for name, path in paths.items() for part in ("--with", f"{name}={path}")]
    metrics = ["--metrics", "extraction_strength,probability,exact_memorization,mia_loss"]
    out = ["--out", str(tmp_path / "e"), "--device", "cpu", "--no-cache"]
    assert (
        main(["evaluate", str(world / "model"), "--benchmark", "own", *hyper, *metrics, *out]) == 0
    )
    record = json.loads((assessed / "assess.json").read_text(encoding="utf-8"))["knowledge"]
    evaluation = load_evaluation(tmp_path / "e")
    for name, value in evaluation.values.items():
        assert record["values"][name] == pytest.approx(value, rel=1e-4), name
    strengths = example_values(evaluation)["forget", "extraction_strength"]
    assert record["memorised"]["rows"] == int((strengths >= 0.5).sum())


def test_one_that_knows_nothing_is_told_so_and_no_rate_is_searched_for(
    command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreached(*_: Any, **__: Any) -> None:
        raise AssertionError("a learning rate was searched for")

    monkeypatch.setattr("amnesis_evaluation.commands.assess.methods.methods_of", unreached)
    out = tmp_path / "recipe.yaml"
    code, said, _ = command("blank", *sets(world, "forget", "retain", "holdout"), "--out", out)
    assert code == 0
    assert said.startswith("The model does not know it, so there is nothing to forget: 0 of 4 rows")
    assert "no learning rate was searched for" in said
    assert f"{out} was not written" in said
    assert not out.exists()


def test_what_was_found_is_told_where_no_method_forgets(
    command: Command, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise RecipeError("no candidate forgot anything")

    monkeypatch.setattr("amnesis_evaluation.commands.assess.methods.methods_of", none)
    out = tmp_path / "out"
    code, said, _ = command("model", *sets(world, "forget", "retain"), "--out", out)
    assert code == 0
    assert "note: there is no starter recipe: no candidate forgot anything" in said
    record = json.loads((out / "assess.json").read_text(encoding="utf-8"))
    assert record["knowledge"]["level"] == "known"
    assert record["alignment"] is not None
    assert not (out / "recipe.yaml").exists()


def test_rows_in_both_sets_are_counted_and_named(
    command: Command, world: Path, write_rows: Any
) -> None:
    rows = [json.loads(line) for line in (world / "forget.jsonl").read_text().splitlines()]
    asked = {**rows[1], "question": f"  {rows[1]['question'].upper()} "}
    like = {**rows[0], "answer": rows[0]["answer"].replace("1987", "1988")}
    files = write_rows(retain=[asked, {"question": "Why?", "answer": "No."}, like])
    code, said, _ = command(
        "model", *sets(world, "forget"), "--retain", files["retain"], "--no-trials"
    )
    assert code == 0
    assert "1 of 4 forget rows are in the retain set, word for word; 1 of 4 share at least" in said
    assert "forget row 1 is retain row 0" in said
    assert "forget row 0 is like retain row 2" in said
    assert "leave --no-trials out" in said


def test_json_is_all_that_is_printed(command: Command, world: Path) -> None:
    code, said, _ = command("model", *sets(world, "forget"), "--json")
    record = json.loads(said)
    assert code == 0
    assert record["schema"] == "amnesis.assessment/1"
    assert record["alignment"] is record["overlap"] is record["methods"] is record["recipe"] is None
    assert any("without --retain" in note for note in record["notes"])


def test_hostile_rows_are_text(
    command: Command, world: Path, write_rows: Any, tmp_path: Path
) -> None:
    hostile = "</td><script>alert(1)</script> \x1b[2J {{ 7 * 7 }} [bold]x[/bold] "
    rows = [{"question": f"{hostile}{k}?", "answer": f"<img src=x>{k}"} for k in range(3)]
    files = write_rows(forget=rows, retain=rows[:1])
    out = tmp_path / "out"
    code, said, error = command(
        "blank", "--forget", files["forget"], "--retain", files["retain"], "--out", out
    )
    assert code == 0
    assert "\x1b" not in said + error
    page = Reader((out / "assess.html").read_text(encoding="utf-8"))
    assert "img" not in page.tags
    assert page.tags.count("script") == 1
    assert "</td><script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text
    assert "{{ 7 * 7 }}" in page.text


def test_nothing_is_written_over(command: Command, world: Path, tmp_path: Path) -> None:
    recipe, folder = tmp_path / "recipe.yaml", tmp_path / "folder"
    recipe.write_text("mine")
    folder.mkdir()
    (folder / "assess.json").write_text("mine")
    (folder / "recipe.yaml").write_text("of an earlier assessment")
    refused(command("model", *sets(world, "forget"), "--out", recipe), "is there already")
    refused(command("model", *sets(world, "forget"), "--out", folder), "--overwrite", "assess.json")
    assert recipe.read_text() == (folder / "assess.json").read_text() == "mine"
    code, *_ = command("blank", *sets(world, "forget"), "--out", folder, "--overwrite")
    assert code == 0
    assert json.loads((folder / "assess.json").read_text())["knowledge"]["level"] == "unknown"
    assert not (folder / "recipe.yaml").exists()


def test_what_is_wrong_is_said_before_the_model_is_loaded(
    command: Command, world: Path, tmp_path: Path
) -> None:
    forget = sets(world, "forget")
    refused(command("model"), "name what must go", "--corpus")
    refused(command("model", *forget, "--benchmark", "fictional"), "not both")
    refused(command("model", *forget, "--corpus", world / "corpus.txt"), "not both")
    refused(command("model", *forget, "--names", "en"), "--names belongs to --corpus")
    refused(command("model", "--corpus", world / "corpus.txt", "--out", tmp_path), ".csv")
    refused(command("model", "--corpus", tmp_path / "no.txt"), "no.txt")
    refused(command("model", *forget, "--candidates", "nppo"), "'nppo'", "npo")
    refused(command("model", *forget, "--limit", "4", "--retain", tmp_path / "x.csv"), "x.csv")


def test_a_benchmark_names_its_sets(command: Command) -> None:
    few = "forget_authors=1:retain_authors=1:holdout_authors=1:facts=0"
    code, said, _ = command("blank", "--benchmark", f"fictional:{few}", "--limit", "2", "--json")
    record = json.loads(said)
    assert code == 0
    assert record["rows"] == {"forget": 2, "retain": 2, "holdout": 2}
    assert "mia_loss" in record["knowledge"]["values"]
