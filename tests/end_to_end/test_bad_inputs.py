"""Every bad input gets exit code 2 and one clear line (or list), and changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from amnesis.cli.app import main

Edit = Callable[[dict[str, Any], Path], None]


@pytest.fixture
def place(tmp_path: Path, tiny_folder: Path, qa_rows: Any, write_rows: Any) -> Path:
    """A folder with a good model, recipe and data, and a user's own file."""
    files = write_rows(forget=qa_rows[:4], retain=qa_rows[4:])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years of work", encoding="utf-8")
    recipe = {
        "model": str(tiny_folder),
        "objective": "ga",
        "regularizer": "nll",
        "combiner": "sago",
        "benchmark": {"name": "own", **{name: str(file) for name, file in files.items()}},
        "training": {"steps": 1},
        "evaluate": {"metrics": ["probability"], "bootstrap": 0},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return tmp_path


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def setting(key: str, value: Any) -> Edit:
    """Change one key of the recipe."""

    def edit(recipe: dict[str, Any], place: Path) -> None:
        *parents, leaf = key.split(".")
        for parent in parents:
            recipe = recipe.setdefault(parent, {})
        recipe[leaf] = value

    return edit


def without(key: str) -> Edit:
    def edit(recipe: dict[str, Any], place: Path) -> None:
        del recipe[key]

    return edit


def data(name: str, content: str | bytes, ending: str = "jsonl") -> Edit:
    """Replace a data file's content, perhaps by another kind of file."""

    def edit(recipe: dict[str, Any], place: Path) -> None:
        path = place / f"{name}.{ending}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        recipe["benchmark"][name] = str(path)

    return edit


def model(change: Callable[[Path], None]) -> Edit:
    """Use a copy of the model's folder that was changed."""

    def edit(recipe: dict[str, Any], place: Path) -> None:
        import shutil

        copy = place / "broken-model"
        shutil.copytree(recipe["model"], copy)
        change(copy)
        recipe["model"] = str(copy)

    return edit


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def no_architecture(folder: Path) -> None:
    (folder / "config.json").write_text("{}", encoding="utf-8")


# (what is done to a good recipe, what the message must say)
RECIPES: dict[str, tuple[Edit, str]] = {
    "unknown key": (setting("objectiv", "ga"), "objectiv: unknown key; did you mean 'objective'"),
    "unknown nested key": (setting("training.lerning_rate", 1), "did you mean 'learning_rate'"),
    "unknown template key": (setting("template.promt", "x"), "did you mean 'prompt'"),
    "no model": (without("model"), "model: is missing"),
    "no objective": (without("objective"), "name an objective, such as objective: npo"),
    "no benchmark": (without("benchmark"), "benchmark: is missing"),
    "unknown objective": (setting("objective", "gaa"), "no objective is called 'gaa'; did you mean"),
    "unknown regularizer": (setting("regularizer", "nl"), "no regularizer is called 'nl'"),
    "unknown combiner": (setting("combiner", "sagoo"), "did you mean 'sago'"),
    "unknown probe": (setting("probes", ["g_efect"]), "did you mean 'g_effect'"),
    "unknown metric": (setting("evaluate.metrics", ["rouge"]), "did you mean 'rouge_l'"),
    "unknown benchmark": (setting("benchmark", "toffu"), "did you mean 'tofu'"),
    "hyper-parameter unknown": (setting("objective", {"name": "npo", "bta": 1}), "did you mean 'beta'"),
    "hyper-parameter out of range": (setting("objective", {"name": "npo", "beta": -1}), "beta"),
    "hyper-parameter of another type": (setting("combiner", {"name": "sago", "gamma": "much"}), "gamma"),
    "hyper-parameter not finite": (setting("combiner", {"name": "sago", "alpha": float("nan")}), "alpha"),
    "combiner without retain stream": (without("regularizer"), "a combiner needs a retain stream"),
    "empty list of objectives": (setting("objective", []), "the list is empty"),
    "steps and epochs": (setting("training", {"steps": 1, "epochs": 1}), "not both"),
    "no steps": (setting("training.steps", 0), "training.steps"),
    "batch of none": (setting("training.batch_size", 0), "training.batch_size"),
    "negative rate": (setting("training.learning_rate", -1e-4), "training.learning_rate"),
    "rate not finite": (setting("training.learning_rate", float("inf")), "training.learning_rate"),
    "unknown schedule": (setting("training.schedule", "square"), "training.schedule"),
    "unknown dtype": (setting("model", {"path": "x", "dtype": "int3"}), "model.dtype"),
    "prompt without question": (setting("template.prompt", "Q: "), "must contain {question}"),
    "unknown template format": (setting("template.format", "haiku"), "template"),
    "model folder missing": (setting("model", "./nowhere"), "there is no such folder"),
    "model folder without config": (model(drop("config.json")), "holds no config.json"),
    "model without weights": (model(drop("model.safetensors")), "holds no weights"),
    "pickled weights": (model(pickled), "pickled weights only"),
    "weights cut short": (model(cut_short), "cannot be loaded"),
    "model of no architecture": (model(no_architecture), "model"),
    "model without tokenizer": (model(no_tokenizer), "no tokenizer"),
    "metric along the run": (setting("evaluate", {"every": 1, "during": ["probabilty"]}), "evaluate.during: no metric is called 'probabilty'; did you mean 'probability'"),
    "retrained missing": (setting("retrained", "./nobody"), "retrained: ./nobody"),
    "data file missing": (setting("benchmark", {"name": "own", "forget": "no.jsonl", "retain": "no.jsonl"}), "no.jsonl"),
    "data of another kind": (data("forget", "x", "docx"), "rows are read from"),
    "data not JSON": (data("forget", '{"question": "a"'), "forget.jsonl:1"),
    "data line no object": (data("forget", '["a"]\n3', "jsonl"), "forget.jsonl"),
    "data empty": (data("forget", ""), "holds no row"),
    "data not UTF-8": (data("forget", b"\xff\xfe\x00"), "not UTF-8"),
    "row without answer": (data("forget", '{"question": "a"}'), "no field 'answer'"),
    "row with empty question": (data("forget", '{"question": " ", "answer": "a"}'), "not empty"),
    "row with a number": (data("forget", '{"question": "a", "answer": 3}'), "must be text"),
    "CSV with a short row": (data("forget", "question,answer\na\n", "csv"), "forget.csv:2"),
    "CSV with other columns": (data("forget", "q,a\nx,y\n", "csv"), "no field 'question'"),
    "CSV with a stray quote": (data("forget", 'question,answer\n"Who?,Me\n' + "What?,That\n" * 500, "csv"), "forget.csv:2"),
    "CSV with two columns of a name": (data("forget", "question,answer,answer\na,b,c\n", "csv"), "forget.csv:1"),
    "CSV in Latin-1": (data("forget", "question;answer\nWer?;Müller\n".encode("latin-1"), "csv"), "Latin-1"),
    "JSON with a key twice": (data("forget", '{"question": "a", "answer": "b", "answer": "c"}'), "stands twice"),
    "broken Parquet": (data("forget", "PAR1", "parquet"), "not a Parquet file"),
    "source with two places": (setting("forget", {"set": "forget", "path": "x"}), "give one of set, path and hub"),
    "source of an unknown set": (setting("retain", {"set": "retian"}), "did you mean 'retain'"),
    "source with a field missing": (setting("forget", {"set": "forget", "fields": {"question": "frage"}}), "no field 'frage'"),
    "weight of nothing": (setting("forget", [{"set": "forget", "weight": 0}]), "weight"),
    "own without retain": (setting("benchmark", {"name": "own", "forget": "a.csv"}), "retain"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_bad_recipe_is_refused_in_words(
    place: Path, capfd: Any, name: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(place)
    edit, said = RECIPES[name]
    path = place / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    edit(recipe, place)
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    before = digest(place)
    code = main(["run", str(path), "--out", str(place / "out"), "--device", "cpu"])
    captured = capfd.readouterr()
    assert code == 2, captured.err
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert all(len(line) < 400 for line in captured.err.splitlines())
    after = digest(place)
    assert {key: after[key] for key in before} == before
    assert set(after) - set(before) <= {"out/recipe.yaml"}


# (the words after `amnesis`, what the message must say); {} is the folder
LINES: dict[str, tuple[list[str], str]] = {
    "no such recipe": (["run", "{}/no.yaml"], "there is no such recipe"),
    "recipe is a folder": (["run", "{}"], "is not a file that can be read to its end; give a YAML file"),
    "folder taken": (["run", "{}/recipe.yaml", "--out", "{}/taken"], "is not empty"),
    "folder inside a file": (["run", "{}/recipe.yaml", "--out", "{}/recipe.yaml/x"], "cannot be made"),
    "folder is a file": (["run", "{}/recipe.yaml", "--out", "{}/recipe.yaml"], "is a file"),
    "override without value": (["run", "{}/recipe.yaml", "training.steps"], "write key.sub=value"),
    "override of nothing": (["run", "{}/recipe.yaml", "=3"], "write key.sub=value"),
    "override of an unknown key": (["run", "{}/recipe.yaml", "training.stepps=3"], "did you mean 'steps'"),
    "override into a number": (["run", "{}/recipe.yaml", "seed=1", "seed.x=3"], "is not a mapping"),
    "no such device": (["run", "{}/recipe.yaml", "--device", "gpu9"], "cannot be used here"),
    "resume without a folder": (["run", "{}/recipe.yaml", "--resume"], "--resume needs --out"),
    "unknown command": (["runn", "{}/recipe.yaml"], "did you mean 'run'"),
    "unknown option": (["run", "{}/recipe.yaml", "--outt", "x"], "--outt"),
    "no recipe": (["run"], "RECIPE"),
    "unknown plugin": (["plugins", "sagoo"], "did you mean 'sago'"),
    "unknown kind": (["plugins", "--kind", "objectives"], "did you mean 'objective'"),
    "finetune by a run's recipe": (["finetune", "{}/recipe.yaml"], "is the recipe of a run"),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_a_bad_command_line_is_refused_in_words(
    place: Path, capfd: Any, name: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(place)
    words, said = LINES[name]
    before = digest(place)
    code = main([word.replace("{}", str(place)) for word in words])
    captured = capfd.readouterr()
    assert code == 2, captured.err
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert digest(place) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("objective: [ga", "not valid YAML"),
        ("- a\n- b", "a mapping of keys to values"),
        ("", "a mapping of keys to values"),
        ("model: !!python/object/apply:os.system [echo]", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe(place: Path, capfd: Any, text: str, said: str) -> None:
    path = place / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    assert main(["run", str(path)]) == 2
    assert said in capfd.readouterr().err


def test_all_problems_are_said_at_once(place: Path, capfd: Any) -> None:
    path = place / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    recipe |= {"model": "./nowhere", "objective": "gaa", "combiner": "sagoo"}
    recipe["benchmark"]["forget"] = "no.jsonl"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert main(["run", str(path), "--check"]) == 2
    said = capfd.readouterr().err
    for problem in ("4 problems", "'gaa'", "'sagoo'", "no.jsonl", "./nowhere"):
        assert problem in said


def test_check_says_what_the_run_costs_and_stops(place: Path, capfd: Any) -> None:
    before = digest(place)
    assert main(["run", str(place / "recipe.yaml"), "--check", "--device", "cpu"]) == 0
    said = capfd.readouterr().out
    assert "1 steps, 4 forget and 4 retain rows" in said
    assert "GiB" in said
    assert digest(place) == before
    texts = ["template={format: text, text: answer, max_length: 4}", "training={epochs: 2}"]
    assert main(["run", str(place / "recipe.yaml"), *texts, "--check", "--device", "cpu"]) == 0
    assert "at least 1 steps" in capfd.readouterr().out, "chunks are not counted yet"


def test_check_of_a_finetuning_stops_too(place: Path, capfd: Any) -> None:
    files = {name: str(place / f"{name}.jsonl") for name in ("forget", "retain")}
    recipe = {
        "model": {"architecture": "llama", "config": {"hidden_size": 16}},
        "benchmark": {"name": "own", **files},
        "sets": ["forget", "retain"],
        "training": {"epochs": 2, "batch_size": 4},
    }
    path = place / "finetune.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    before = digest(place)
    assert main(["finetune", str(path), "--check", "--device", "cpu"]) == 0
    assert "4 steps over 8 rows" in capfd.readouterr().out
    assert main(["finetune", str(path), "--check", "sets=[forgot]"]) == 2
    assert "did you mean 'forget'" in capfd.readouterr().err
    assert digest(place) == before


def test_overwrite_replaces_a_runs_own_files_only(place: Path, capfd: Any) -> None:
    line = ["run", str(place / "recipe.yaml"), "--out", str(place / "taken"), "--device", "cpu"]
    assert main([*line, "--overwrite"]) == 0
    assert (place / "taken" / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    first = (place / "taken" / "results.json").read_text(encoding="utf-8")
    assert main(line) == 2
    assert "is not empty" in capfd.readouterr().err
    assert main([*line, "--resume"]) == 0  # it is finished: nothing is done again
    assert (place / "taken" / "results.json").read_text(encoding="utf-8") == first
    other = [*line, "training.steps=2", "--resume"]
    assert main(other) == 2
    assert "a run of another recipe" in capfd.readouterr().err
