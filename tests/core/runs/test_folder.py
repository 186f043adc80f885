"""A run's folder: one owner, free or resumed, and never over what is not a run's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from amnesis.contracts import Evaluation
from amnesis.errors import DataError, Interrupted, OutputError, RecipeError
from amnesis.runs.folder import (
    NAMES,
    RunFolder,
    check_empty,
    check_free,
    claim,
    make_new_folder,
    remove_run,
)
from amnesis.runs.recipe import Recipe
from amnesis.runs.results import Results
from amnesis.training.unlearner import FitResult

RECIPE = Recipe.parse({"model": "m", "benchmark": "fictional", "objective": "ga"})
OTHER = Recipe.parse({"model": "m", "benchmark": "fictional", "objective": "npo"})
LOCK = ".lock"


def own(
    out: Path | None, *, resume: bool = False, overwrite: bool = False
) -> AbstractContextManager[RunFolder]:
    return RunFolder.own(out, "run", resume=resume, overwrite=overwrite, device="cpu")


def begun(out: Path, recipe: Recipe = RECIPE, **options: bool) -> Path:
    """Begin a run that stays as it is after its first step."""
    with own(out, **options) as folder:
        assert folder.begin(recipe) is None
        folder.keep()
    return out


def fill(folder: Path) -> dict[str, str]:
    """Put a run's own files into a folder, beside a user's; return the user's."""
    theirs = {"thesis.txt": "years of work", "models/model": "another", "recipe.yaml.bak": "old"}
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        if "." in name:
            (folder / name).write_text("of a run", encoding="utf-8")
        else:
            (folder / name).mkdir()
            (folder / name / "file").write_text("of a run", encoding="utf-8")
    for name, text in theirs.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return theirs


def texts(folder: Path) -> dict[str, str]:
    """Return every file's text, but for the lock that a run leaves behind."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    }


# -- a new run ------------------------------------------------------------------------------------


def test_beginning_writes_the_recipe(tmp_path: Path) -> None:
    out = begun(tmp_path / "deep" / "out")
    assert texts(tmp_path) == {"deep/out/recipe.yaml": RECIPE.to_yaml()}
    assert Recipe.load(out / "recipe.yaml") == RECIPE


def test_all_of_a_run_is_in_its_folder(tmp_path: Path) -> None:
    with own(tmp_path / "out") as folder:
        for place in (folder.checkpoints, folder.tensorboard, folder.model):
            assert place.parent == folder.path == tmp_path / "out"
            assert place.name in NAMES


def test_without_a_folder_it_is_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20260203-040506")
    stem = "runs/run-20260203-040506"
    for expected in (stem, f"{stem}-2", f"{stem}-3"):
        with own(None) as folder:
            assert folder.begin(RECIPE) is None
            folder.keep()
        assert folder.path == Path(expected)
    assert make_new_folder("finetune") == Path("runs/finetune-20260203-040506")
    assert make_new_folder("finetune") == Path("runs/finetune-20260203-040506-2")


def test_an_empty_folder_is_free(tmp_path: Path) -> None:
    begun(tmp_path)
    assert texts(tmp_path) == {"recipe.yaml": RECIPE.to_yaml()}


@pytest.mark.parametrize("taken", ["a run", "a user's file", "a file in its place"])
def test_a_folder_that_is_taken_is_refused_and_left_alone(tmp_path: Path, taken: str) -> None:
    out = tmp_path / "out"
    if taken == "a file in its place":
        out.write_text("mine", encoding="utf-8")
    else:
        out.mkdir()
        name = "recipe.yaml" if taken == "a run" else "thesis.txt"
        (out / name).write_text("mine", encoding="utf-8")
    before = texts(tmp_path)
    said = "is a file, not a folder" if taken == "a file in its place" else "is not empty"
    refusals: list[Callable[[], object]] = [
        lambda: own(out).__enter__(),
        lambda: check_free(out),
        lambda: claim(out),
        lambda: check_empty(out, "go away", overwrite=False),
    ]
    for refused in refusals:
        with pytest.raises(OutputError, match=said) as raised:
            refused()
        assert str(raised.value).startswith(f"{out}: ")
    assert texts(tmp_path) == before


def test_what_to_do_is_said_where_something_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError) as raised:
        check_free(tmp_path)
    for word in ("--resume", "--overwrite", *NAMES):
        assert word in str(raised.value)
    with pytest.raises(OutputError) as raised:
        check_empty(tmp_path, "go away", overwrite=False)
    assert str(raised.value) == f"{tmp_path}: is not empty; go away"
    check_empty(tmp_path, "go away", overwrite=True)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be made: Not a directory"):
        own(tmp_path / "file" / "out").__enter__()


# -- one owner ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_while_a_run_lives_no_other_comes_in(tmp_path: Path, options: dict[str, bool]) -> None:
    out = tmp_path / "out"
    with own(out) as folder:
        folder.begin(RECIPE)
        folder.keep()
        with pytest.raises(OutputError, match="another run is at work here") as raised:
            own(out, **options).__enter__()
        assert str(raised.value).startswith(f"{out}: ")
        assert texts(out) == {"recipe.yaml": RECIPE.to_yaml()}
    with own(out, resume=True) as again:  # afterwards anybody may
        assert again.begin(RECIPE) is None


def test_an_interruption_knows_where_the_run_is(tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as raised, own(tmp_path / "out") as folder:
        folder.begin(RECIPE)
        raise Interrupted("interrupted after step 2 of 3")
    assert raised.value.folder == tmp_path / "out"
    assert texts(tmp_path) == {"out/recipe.yaml": RECIPE.to_yaml()}


# -- a run that fails -----------------------------------------------------------------------------


@pytest.mark.parametrize("begins", [True, False])
def test_one_that_fails_before_its_first_step_leaves_nothing(tmp_path: Path, begins: bool) -> None:
    with pytest.raises(RecipeError), own(tmp_path / "out") as folder:
        if begins:
            folder.begin(RECIPE)
        raise RecipeError("wrong")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    with pytest.raises(RecipeError), own(tmp_path) as folder:
        folder.begin(RECIPE)
        raise RecipeError("wrong")
    assert list(tmp_path.iterdir()) == []


def test_one_that_fails_later_keeps_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(RecipeError), own(tmp_path / "out") as folder:
        folder.begin(RECIPE)
        folder.keep()
        raise RecipeError("wrong")
    assert texts(tmp_path) == {"out/recipe.yaml": RECIPE.to_yaml()}


@pytest.mark.parametrize("option", ["resume", "overwrite"])
def test_one_whose_inputs_are_wrong_costs_an_earlier_run_nothing(
    tmp_path: Path, option: str
) -> None:
    """What is wrong is said before the run begins: nothing has been replaced by then."""
    fill(tmp_path)
    before = texts(tmp_path)
    with pytest.raises(RecipeError), own(tmp_path, **{option: True}):
        raise RecipeError("no objective is called 'gaa'")
    assert texts(tmp_path) == before


def test_a_resumed_one_that_fails_keeps_what_was_there(tmp_path: Path) -> None:
    out = begun(tmp_path / "out")
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "before.json").write_text("{}", encoding="utf-8")
    before = texts(tmp_path)
    with pytest.raises(RecipeError), own(out, resume=True) as folder:
        folder.begin(RECIPE)
        raise RecipeError("wrong")
    assert texts(tmp_path) == before


# -- over an earlier run --------------------------------------------------------------------------


def test_overwriting_replaces_a_run_s_own_files_and_nothing_else(tmp_path: Path) -> None:
    theirs = fill(tmp_path)
    before = texts(tmp_path)
    with own(tmp_path, overwrite=True) as folder:
        assert texts(tmp_path) == before  # until it begins
        assert folder.begin(RECIPE) is None
        folder.keep()
    assert texts(tmp_path) == {**theirs, "recipe.yaml": RECIPE.to_yaml()}


@pytest.mark.parametrize("how", ["begin", "claim", "remove_run"])
def test_no_link_is_followed(tmp_path: Path, how: str) -> None:
    precious, out = tmp_path / "precious", tmp_path / "out"
    precious.mkdir()
    out.mkdir()
    (precious / "weights").write_text("years of work", encoding="utf-8")
    (out / "model").symlink_to(precious, target_is_directory=True)
    (out / "report.html").symlink_to(tmp_path / "nowhere")
    if how == "begin":
        begun(out, overwrite=True)
    elif how == "claim":
        assert claim(out, overwrite=True) == out
    else:
        remove_run(out)
    assert set(texts(out)) == ({"recipe.yaml"} if how == "begin" else set())
    assert not any(path.is_symlink() for path in out.iterdir())
    assert texts(precious) == {"weights": "years of work"}


@pytest.mark.parametrize("where", ["model", "data"])
def test_what_the_run_itself_reads_is_not_overwritten(tmp_path: Path, where: str) -> None:
    fill(tmp_path)
    before = texts(tmp_path)
    read = tmp_path / ("model" if where == "model" else "results.json")
    key = "model" if where == "model" else "forget"
    recipe = Recipe.parse({**RECIPE.model_dump(exclude_unset=True), key: {"path": str(read)}})
    with (
        pytest.raises(OutputError, match="is read by this run, and --overwrite would delete it"),
        own(tmp_path, overwrite=True) as folder,
    ):
        folder.begin(recipe)
    assert texts(tmp_path) == before


# -- a run that goes on ---------------------------------------------------------------------------


def test_a_run_that_was_cut_off_goes_on_with_what_is_there(tmp_path: Path) -> None:
    out = begun(tmp_path / "out")
    for name, text in {"checkpoints/before.json": "{}", ".results.json.mine": "mine"}.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(text, encoding="utf-8")
    for scratch in (".results.json.amnesis-x1", "checkpoints/.before.json.amnesis-y2"):
        (out / scratch).mkdir()
        (out / scratch / "half").write_text("half", encoding="utf-8")
    with own(out, resume=True) as folder:
        assert folder.begin(RECIPE) is None
        assert folder.read_fitted("rows") is None
    assert texts(out) == {
        "recipe.yaml": RECIPE.to_yaml(),
        "checkpoints/before.json": "{}",
        ".results.json.mine": "mine",
    }


def test_a_run_that_is_done_gives_its_results(tmp_path: Path) -> None:
    out = begun(tmp_path / "out")
    results = Results(after={"forget/probability": 0.5}, steps=3)
    results.write(out)
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "answers-after.parquet").write_text("of one killed at its end")
    with own(out, resume=True) as folder:
        finished = folder.begin(RECIPE)
    assert not list((out / "checkpoints").iterdir())
    assert finished is not None
    assert finished.folder == out
    assert finished.results.document() == results.document()


def test_a_run_of_another_recipe_is_not_gone_on_with(tmp_path: Path) -> None:
    out = begun(tmp_path / "out")
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "before.json").write_text("{}", encoding="utf-8")
    before = texts(out)
    with (
        pytest.raises(OutputError, match="holds a run of another recipe") as raised,
        own(out, resume=True) as folder,
    ):
        folder.begin(OTHER)
    assert str(out / "recipe.yaml") in str(raised.value)
    assert texts(out) == before


def test_resuming_where_nothing_began_begins(tmp_path: Path) -> None:
    begun(tmp_path / "out", resume=True)
    assert texts(tmp_path) == {"out/recipe.yaml": RECIPE.to_yaml()}


def test_resuming_among_files_that_are_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is not empty"), own(tmp_path, resume=True) as folder:
        folder.begin(RECIPE)
    assert texts(tmp_path) == {"thesis.txt": "mine"}


# -- a run that is done ---------------------------------------------------------------------------


def test_what_was_trained_is_there_for_a_run_that_goes_on(
    tmp_path: Path, tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    fitted = FitResult(
        steps=3,
        trajectory=[{"step": 1, "forget/loss": 0.1 + 0.2}, {"step": 3, "forget/loss": -2.0}],
        data={"forget": {"examples": 4}},
        notes=["«said»"],
    )
    with own(tmp_path) as folder:
        folder.begin(RECIPE)
        assert folder.read_fitted("rows") is None
        folder.keep()
        folder.write_fitted(tiny_llama, tiny_tokenizer, fitted, "rows")
        assert folder.read_fitted("rows") is None  # it is not a resumed run's
    with own(tmp_path, resume=True) as folder:
        assert folder.begin(RECIPE) is None
        assert folder.read_fitted("rows") == fitted
        with pytest.raises(DataError, match="trained on other rows"):
            folder.read_fitted("other rows")
        loaded = AutoModelForCausalLM.from_pretrained(folder.model)
        tokenizer = AutoTokenizer.from_pretrained(folder.model)
    for name, weight in tiny_llama.state_dict().items():
        assert loaded.state_dict()[name].equal(weight)
    assert len(tokenizer) == len(tiny_tokenizer)


@pytest.mark.parametrize("evaluated", [True, False])
def test_the_results_are_written_last_with_how_long_it_took_and_on_what(
    tmp_path: Path, evaluated: bool
) -> None:
    record = {"set": "forget", "row": 0, "metric": "probability", "value": 0.5}
    results = Results(
        after={"forget/probability": 0.5}, steps=3, notes=["said"], environment={"engine": "vllm"}
    )
    with own(tmp_path) as folder:
        folder.begin(RECIPE)
        evaluations = {"after": Evaluation(examples=[record])} if evaluated else None
        done = folder.finish("cpu", results, evaluations)  # type: ignore[arg-type]
    names = {"recipe.yaml", "results.json", *(["examples.parquet"] if evaluated else [])}
    assert {path.name for path in tmp_path.iterdir()} - {LOCK} == names
    document = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert done.folder == tmp_path
    assert done.results.document() == document
    assert document["seconds"] >= 0
    assert document["environment"]["device"] == "cpu"
    assert document["environment"]["engine"] == "vllm"  # what the evaluations say is kept
    assert (document["after"], document["steps"]) == ({"forget/probability": 0.5}, 3)
    assert results.seconds is None  # what it was given is not changed
