"""Runs side by side."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import amnesis
from amnesis.cli.app import main
from amnesis.errors import DataError, RecipeError
from amnesis.runs.results import Results
from amnesis_evaluation.reports.comparison import (
    Run,
    forgot_nothing,
    grouped,
    mean_and_error,
    pareto_front,
)
from amnesis_evaluation.reports.equal_forgetting import NotReachedError, Target, at_target
from amnesis_evaluation.reports.tables import Cell, Number, Table


def run_folder(
    path: Path, forget: float, retain: float, *, seed: int = 0, objective: Any = "ga", **more: Any
) -> Path:
    path.mkdir()
    recipe = {"objective": objective, "regularizer": "kl", "combiner": "sum", "seed": seed}
    (path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    results = {
        "before": {"forget/probability": 0.9, "retain/probability": 0.8},
        "after": {"forget/probability": forget, "retain/probability": retain},
        "trajectory": [
            {"step": 10, "forget/probability": 0.5, "retain/probability": 0.7},
            {"step": 15, "forget/loss": 3.0},
        ],
        "steps": 20,
        **more,
    }
    (path / "results.json").write_text(json.dumps(results))
    return path


def test_seeds_of_one_recipe_are_one_group(tmp_path: Path) -> None:
    folders = [
        run_folder(tmp_path / "a0", 0.1, 0.6),
        run_folder(tmp_path / "a1", 0.3, 0.8, seed=1),
        run_folder(tmp_path / "b", 0.2, 0.7, objective="npo"),
    ]
    groups = grouped(map(Run.load, folders))
    assert [(g.name, len(g.runs)) for g in groups] == [("ga + kl, sum", 2), ("npo + kl, sum", 1)]
    mean, error = mean_and_error(groups[0].values_of("forget/probability"))
    assert mean == pytest.approx(0.2)
    assert error == pytest.approx(np.std([0.1, 0.3], ddof=1) / math.sqrt(2))
    assert mean_and_error([0.5]) == (0.5, None)


points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8)


@given(points)
def test_the_front_is_what_nothing_beats(given_points: list[tuple[float, float]]) -> None:
    front = pareto_front(given_points)
    for point, on_front in zip(given_points, front, strict=True):
        beaten = any(
            (f < point[0] and r >= point[1]) or (f <= point[0] and r > point[1])
            for f, r in given_points
        )
        assert on_front == (not beaten)
    assert not given_points or any(front)


def test_a_run_without_the_metric_is_on_no_front() -> None:
    assert pareto_front([(math.nan, 1.0), (0.5, 0.5)]) == [False, True]


def test_equal_forgetting_is_interpolated_along_the_trajectory(tmp_path: Path) -> None:
    run = Run.load(run_folder(tmp_path / "run", 0.1, 0.5))
    there = at_target(run, Target.parse("forget/probability=0.3"), ["retain/probability"])
    assert there.step == pytest.approx(15)
    assert there.values == {"retain/probability": pytest.approx(0.6)}
    there = at_target(run, Target("forget/probability", 0.7), ["retain/probability"])
    assert there.step == pytest.approx(5)
    assert there.values == {"retain/probability": pytest.approx(0.75)}
    assert at_target(run, Target("forget/probability", 0.9), []).step == 0
    with pytest.raises(DataError, match=r"never is 0\.05; it goes from 0\.1 to 0\.9"):
        at_target(run, Target("forget/probability", 0.05), [])
    with pytest.raises(DataError, match="no trajectory of 'forget/rouge_l'"):
        at_target(run, Target("forget/rouge_l", 0.05), [])


@pytest.mark.parametrize("text", ["forget/probability", "=0.1", "forget/probability=low", "a=nan"])
def test_a_target_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--at"):
        Target.parse(text)


def test_recovery_plain_and_corrected_for_chance() -> None:
    plain = amnesis.create("metric", "recovery")
    corrected = amnesis.create("metric", "recovery", chance=0.25)
    assert plain.value(0.446, 0.4282) == pytest.approx(0.96, abs=1e-3)
    assert corrected.value(0.446, 0.4282) == pytest.approx(0.1782 / 0.196)
    assert corrected.value(0.446, 0.25) == 0
    assert math.isnan(corrected.value(0.25, 0.3))
    assert (plain.key, corrected.key) == ("recovery", "recovery_above_0.25")


ROWS: list[list[Cell]] = [["a|b & c", Number(0.1, 0.2)], ["d", Number(math.nan)]]
TABLE = Table("title", ["run", "50 %_x"], ROWS)


def test_tables_in_every_form() -> None:
    assert TABLE.markdown().splitlines() == [
        "| run | 50 %_x |",
        "| --- | ---: |",
        "| a\\|b & c | 0.100 ± 0.200 |",
        "| d | – |",
    ]
    assert list(csv.reader(io.StringIO(TABLE.csv()))) == [
        ["run", "50 %_x", "± 50 %_x"],
        ["a|b & c", "0.1", "0.2"],
        ["d", "", ""],
    ]
    latex = TABLE.latex()
    assert r"run & 50 \%\_x \\" in latex
    assert r"a|b \& c & 0.100 $\pm$ 0.200 \\" in latex
    assert latex.startswith("\\begin{tabular}{lr}\n\\toprule")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Number(3.2e-12), "3.2e-12"),
        (Number(0.0), "0.000"),
        (Number(0.001), "0.001"),
        (Number(0.5, 0.00012), "0.500 ± 0.00012"),
        (Number(-0.0004), "-0.0004"),
        (Number(2.5e20), "2.5e+20"),
        (Number(17.5, 2.5, digits=1), "17.5 ± 2.5"),
        (Number(math.nan), "–"),
    ],
)
def test_few_digits_hide_no_value(number: Number, text: str) -> None:
    assert str(number) == text


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(numbers, numbers)
def test_a_csv_has_every_digit(mean: float, error: float) -> None:
    written = Table("title", ["run", "m"], [["a", Number(mean, error)]]).csv()
    (row,) = csv.DictReader(io.StringIO(written))
    assert (float(row["m"]), float(row["± m"])) == (mean, error)


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=4))
def test_a_csv_gives_every_text_back(rows: list[tuple[str, str]]) -> None:
    written = Table("title", ["run", "m"], rows).csv()
    _, *lines = csv.reader(io.StringIO(written, newline=""))
    assert [[one.removeprefix("'") for one in line] for line in lines] == [
        [one.removeprefix("'") for one in row] for row in rows
    ]


def test_a_lone_carriage_return_ends_no_line() -> None:
    written = Table("title", ["run", "m"], [["a\rb", Number(0.5)], ["c", Number(0.25)]]).csv()
    assert written == 'run,m\n"a\rb",0.5\nc,0.25\n'


def shown(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    for part in table.rich(width):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("runs", [1, 3, 9])
def test_a_narrow_terminal_shows_every_metric_of_every_run(runs: int) -> None:
    names = [f"{name}/{metric}" for name in ("forget", "retain") for metric in METRICS]
    rows: list[list[Cell]] = [
        [f"run{k} + kl, sago", *(Number(k + index / 100, 0.001) for index in range(len(names)))]
        for k in range(runs)
    ]
    text = shown(Table("title", ["run", *names], rows), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    lines = [line.strip().split("  ") for line in text.splitlines()]
    for index, name in enumerate(names):
        cells = [cell.strip() for line in lines if line[0] == name for cell in line[1:] if cell]
        assert cells == [str(row[index + 1]) for row in rows], "whole, in the runs' order"
    for k in range(runs):
        assert f"run{k}" in text
    if runs <= 3:
        assert text.count(names[0]) == 1, "three runs stand beside each other"


METRICS = ("probability", "rouge_l", "extraction_strength", "truth_ratio", "min_k", "perplexity")


def test_what_does_not_fit_is_folded_and_not_cut() -> None:
    name, label = "forget/" + "x" * 60, "run" + "y" * 60
    text = shown(Table("title", ["run", name], [[label, Number(0.25)]]), 40)
    assert "".join(line[:15].strip() for line in text.splitlines()[-6:]).count("x") == 60
    assert text.count("y") == 60
    assert "0.250" in text


def compare(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert main(["compare", *arguments]) == 0
    said = capsys.readouterr()
    return said.out, said.err


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return [
        str(run_folder(tmp_path / "a0", 0.1, 0.6)),
        str(run_folder(tmp_path / "a1", 0.3, 0.8, seed=1)),
        str(run_folder(tmp_path / "b", 0.3, 0.6, objective="npo")),
    ]


Captured = pytest.CaptureFixture[str]


def test_the_command_marks_the_front_and_gives_recovery(
    folders: list[str], capsys: Captured
) -> None:
    output, notes = compare(capsys, *folders, "--format", "csv", "--chance", "0.4")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [row["front"] for row in rows] == ["★", ""]
    first = {key: float(rows[0][key]) for key in rows[0] if "probability" in key}
    assert first["forget/probability"] == pytest.approx(0.2)
    assert first["± forget/probability"] == pytest.approx(0.1)
    assert first["recovery of retain/probability"] == pytest.approx(0.875)
    assert first["± recovery of retain/probability"] == pytest.approx(0.125)
    assert first["recovery_above_0.4 of retain/probability"] == pytest.approx(0.75)
    assert rows[1]["seeds"] == "1"
    assert rows[1]["± forget/probability"] == ""
    (note,) = notes.splitlines()
    assert note.startswith("note: which is better is not tested: without examples.parquet")
    assert all(folder in note for folder in folders)


def test_a_single_seed_has_no_column_of_errors(folders: list[str], capsys: Captured) -> None:
    output, _ = compare(capsys, folders[0], folders[2], "--format", "csv")
    assert "±" not in output


def test_the_command_compares_at_equal_forgetting(folders: list[str], capsys: Captured) -> None:
    at = ["--at", "forget/probability=0.3"]
    output, _ = compare(capsys, *folders, *at, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert rows[0]["reached"] == "2/2"
    assert (rows[0]["steps"], rows[0]["± steps"]) == ("17.5", "2.5")
    assert float(rows[1]["retain/probability"]) == 0.6
    assert "17.5 ± 2.5" in compare(capsys, *folders, *at)[0]


def test_what_was_not_evaluated_along_is_not_interpolated(tmp_path: Path, capsys: Captured) -> None:
    """A straight line from before to after would say nothing of the step between them."""
    ends = {"forget/probability": 0.1, "retain/probability": 0.5, "forget/rouge_l": 0.2}
    more: dict[str, Any] = {
        "before": {**ends, "forget/probability": 0.9, "forget/rouge_l": 0.8},
        "after": {**ends, "new": 0.1},
        "trajectory": [
            {"step": 10, "forget/probability": 0.5, "retain/probability": 0.7, "new": 0.3},
            {"step": 12, "forget/probability": 0.4, "late": 0.3},
        ],
    }
    folder = run_folder(tmp_path / "run", 0, 0, **more)
    run = Run.load(folder)
    metrics = ["forget/rouge_l", "retain/probability", "new", "late"]
    there = at_target(run, Target("forget/probability", 0.7), metrics)
    assert there.step == pytest.approx(5)
    assert there.values == {"retain/probability": pytest.approx(0.6)}
    # At an evaluation itself there is nothing to interpolate.
    there = at_target(run, Target("forget/probability", 0.9), metrics)
    assert there.values == {"forget/rouge_l": 0.8, "retain/probability": 0.5}
    there = at_target(run, Target("forget/probability", 0.45), metrics)
    assert set(there.values) == {"retain/probability", "new"}
    output, notes = compare(
        capsys, str(folder), "--at", "forget/probability=0.7", "--format", "markdown"
    )
    header, _, row = (line.strip("| ").split(" | ") for line in output.splitlines())
    assert dict(zip(header, row, strict=True)) | {"run": ""} == {
        "run": "",
        "reached": "1/1",
        "steps": "5.0",
        "retain/probability": "0.600",
        "forget/rouge_l": "–",
        "new": "–",
    }
    assert notes.count("\n") == 1
    assert "not known there: forget/rouge_l, new; evaluate them while a run goes on" in notes
    assert "evaluate.during" in notes


def test_a_target_that_was_evaluated_only_at_the_ends_is_refused(tmp_path: Path) -> None:
    run = Run.load(run_folder(tmp_path / "run", 0.1, 0.5, trajectory=[]))
    with pytest.raises(DataError, match="no trajectory of 'forget/probability'"):
        at_target(run, Target("forget/probability", 0.5), [])


def test_the_ends_of_a_run_that_says_no_steps_have_no_place(tmp_path: Path) -> None:
    run = Run.load(run_folder(tmp_path / "run", 0.1, 0.5, steps=None))
    assert run.path_of("forget/probability") == [(0, 0.9), (10, 0.5)]


@pytest.mark.parametrize("name", ["run[v2]", "q[/b]x", "[red]"])
def test_names_in_brackets_are_shown_verbatim(tmp_path: Path, capsys: Captured, name: str) -> None:
    folder = tmp_path / name.replace("/", "\u2215")
    for copy in ("one", "two"):
        (folder / copy).mkdir(parents=True)
        results = {"after": {"forget/m[v2]": 0.5, name: 0.25}}
        (folder / copy / "results.json").write_text(json.dumps(results))
    both = [str(folder / "one"), str(folder / "two")]
    output, _ = compare(capsys, *both)
    assert "forget/m[v2]" in output
    assert name in output
    assert compare(capsys, str(folder / "one"), "--retention", name)[0].count(name) == 3
    said = refused(capsys, *both, "--at", "forget/m[v2]=0.1")
    assert str(folder / "one") in said
    assert "'forget/m[v2]'" in said
    nameless = folder / "results.json"
    nameless.write_text(json.dumps({"after": {"a": 1}}))
    assert folder.name in compare(capsys, str(folder))[0]


def test_folders_of_one_name_are_told_apart(tmp_path: Path, capsys: Captured) -> None:
    for parent in "xyz":
        (tmp_path / parent).mkdir()
    folders = [
        str(run_folder(tmp_path / "x" / "out", 0.1, 0.5)),
        str(run_folder(tmp_path / "y" / "out", 0.1, 0.5, objective={"name": "ga", "weight": 2})),
        str(run_folder(tmp_path / "z" / "out", 0.1, 0.5, objective="npo")),
    ]
    rows = csv.DictReader(io.StringIO(compare(capsys, *folders, "--format", "csv")[0]))
    assert [row["run"] for row in rows] == [
        "ga + kl, sum (x/out)",
        "ga + kl, sum (y/out)",
        "npo + kl, sum",
    ]
    for folder in folders:
        (Path(folder) / "recipe.yaml").unlink()
    rows = csv.DictReader(io.StringIO(compare(capsys, *folders, "--format", "csv")[0]))
    assert [row["run"] for row in rows] == ["x/out", "y/out", "z/out"]


def test_the_folder_that_one_stands_in_has_its_name(
    folders: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (Path(folders[0]) / "recipe.yaml").unlink()
    monkeypatch.chdir(folders[0])
    (row,) = csv.DictReader(io.StringIO(compare(capsys, ".", "--format", "csv")[0]))
    assert row["run"] == "a0"


def test_without_the_front_s_metrics_a_note_says_so(tmp_path: Path, capsys: Captured) -> None:
    folder = run_folder(tmp_path / "run", 0, 0, after={"forget/rouge_l": 0.5})
    _, notes = compare(capsys, str(folder))
    assert [note.split(", which")[0] for note in notes.splitlines()] == [
        "note: no run has 'forget/probability'",
        "note: no run has 'retain/probability'",
    ]
    other = run_folder(tmp_path / "other", 0.1, 0.2, objective="npo")
    _, notes = compare(capsys, str(folder), str(other))
    assert "note: ga + kl, sum: without 'forget/probability'" in notes


def along(path: Path, *forget: float, **more: Any) -> Path:
    """A run that goes through these values of forget/probability, ten steps apart."""
    before, *between, after = forget
    points = [{"step": 10 * k, "forget/probability": v} for k, v in enumerate(between, start=1)]
    results = {
        "before": {"forget/probability": before, "retain/probability": 0.8},
        "after": {"forget/probability": after, "retain/probability": 0.5},
        "trajectory": points,
        "steps": 10 * (len(forget) - 1),
    }
    return run_folder(path, 0, 0, **{**results, **more})


def test_a_run_that_starts_below_the_target_and_rises_does_not_reach_it(
    tmp_path: Path, capsys: Captured
) -> None:
    folder = along(tmp_path / "run", 0.05, 0.3, 0.6)
    with pytest.raises(
        NotReachedError, match=r"0\.05 at the start, below 0\.1, and so never falls"
    ):
        at_target(Run.load(folder), Target("forget/probability", 0.1), [])
    output, notes = compare(
        capsys, str(folder), "--at", "forget/probability=0.1", "--format", "csv"
    )
    (row,) = csv.DictReader(io.StringIO(output))
    assert (row["reached"], row["steps"]) == ("0/1", "")
    assert "write --at 'forget/probability>=0.1'" in notes
    there = at_target(Run.load(folder), Target.parse("forget/probability>=0.1"), [])
    assert there.step == pytest.approx(2)
    with pytest.raises(NotReachedError, match=r"above 0\.01, and so never rises to it"):
        at_target(Run.load(folder), Target.parse("forget/probability >= 0.01"), [])


def test_of_several_crossings_the_first_is_shown_and_all_are_said(
    tmp_path: Path, capsys: Captured
) -> None:
    folder = along(tmp_path / "run", 0.9, 0.1, 0.7, 0.3)
    there = at_target(Run.load(folder), Target("forget/probability", 0.5), [])
    assert there.step == pytest.approx(5)
    assert there.crossings == pytest.approx((5, 10 + 20 / 3, 25))
    at = ["--at", "forget/probability=0.5"]
    output, notes = compare(capsys, str(folder), *at, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(output))
    assert float(row["steps"]) == pytest.approx(5)
    assert "forget/probability = 0.5 at the steps 5, 16.67, 25; shown at the first" in notes
    _, notes = compare(capsys, str(folder), "--at", "forget/probability=0.8")
    assert "at the steps" not in notes


paths = st.lists(st.integers(0, 6), min_size=3, max_size=8)


@given(paths, st.integers(0, 6), st.booleans())
def test_a_run_is_at_its_target_where_it_first_has_gone_through_it(
    values: list[int], value: int, rising: bool
) -> None:
    """Against a walk along the path in small steps."""
    trajectory = [{"step": 10 * k, "m": v} for k, v in enumerate(values)]
    run = Run(Path("run"), None, Results(after={"m": values[-1]}, trajectory=trajectory))
    fine = np.interp(np.arange(0, 10 * len(values) - 9, 0.125), 10 * np.arange(len(values)), values)
    before = fine < value if rising else fine > value
    try:
        there = at_target(run, Target("m", value, rising), [])
    except NotReachedError:
        starts_beyond = values[0] > value if rising else values[0] < value
        assert starts_beyond or before.all()
        return
    assert there.step == pytest.approx(float(np.argmin(before)) / 8, abs=0.125)
    assert there.crossings == tuple(sorted(set(there.crossings)))
    changes = int((before[1:] != before[:-1]).sum()) + int(not before[0])
    assert len(there.crossings) <= changes, "a touch is one place"


def test_at_a_run_without_a_trajectory_is_refused_with_the_remedy(
    tmp_path: Path, capsys: Captured
) -> None:
    """Also beside a run that has one: a table without a word of the other would mislead."""
    bare = run_folder(tmp_path / "bare", 0.1, 0.5, trajectory=[])
    whole = run_folder(tmp_path / "whole", 0.1, 0.5, objective="npo")
    said = refused(capsys, str(whole), str(bare), "--at", "forget/probability=0.3")
    assert f"{bare}: has no trajectory of 'forget/probability'" in said
    assert "evaluate it while it runs (evaluate.every, evaluate.during)" in said


def test_a_copy_of_a_run_is_no_repetition(tmp_path: Path, capsys: Captured) -> None:
    one = run_folder(tmp_path / "one", 0.1, 0.6, seconds=10.0)
    copy = run_folder(tmp_path / "copy", 0.1, 0.6, seconds=12.0)
    other_seed = run_folder(tmp_path / "seed", 0.3, 0.8, seed=1)
    same_values = run_folder(tmp_path / "same", 0.1, 0.6, seed=2)
    (group,) = grouped(map(Run.load, [one, copy, other_seed, same_values]))
    assert [run.folder for run in group.runs] == [one, other_seed, same_values]
    output, notes = compare(capsys, str(one), str(copy), "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(output))
    assert row["seeds"] == "1"
    assert notes.startswith(f"note: {copy} is a copy of {one}: one recipe, one seed")
    again = run_folder(tmp_path / "again", 0.12, 0.6)
    output, notes = compare(capsys, str(one), str(again), "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(output))
    assert row["seeds"] == "2"
    assert "other results; they count as two runs" in notes


def test_a_run_that_forgot_nothing_is_on_no_front(tmp_path: Path, capsys: Captured) -> None:
    """Its retention is the highest, and nothing else would beat it."""
    idle = run_folder(tmp_path / "idle", 0.9, 0.8, objective="npo")
    forgetful = run_folder(tmp_path / "forgetful", 0.1, 0.6)
    output, notes = compare(capsys, str(idle), str(forgetful), "--format", "csv")
    assert [row["front"] for row in csv.DictReader(io.StringIO(output))] == ["", "★"]
    assert "npo + kl, sum forgot nothing by forget/probability, and is on no front" in notes


@pytest.mark.parametrize(
    ("after", "before_ends", "after_ends", "nothing"),
    [
        (0.9, None, None, True),
        (0.95, None, None, True),
        (0.89, None, None, False),
        (0.89, (0.85, 0.93), (0.84, 0.92), True),
        (0.8, (0.85, 0.93), (0.7, 0.91), True),
        (0.86, (0.85, 0.93), (0.84, 0.87), True),
        (0.8, (0.85, 0.93), (0.7, 0.89), False),
    ],
)
def test_what_forgot_nothing(
    after: float,
    before_ends: tuple[float, float] | None,
    after_ends: tuple[float, float] | None,
    nothing: bool,
) -> None:
    ends = {"before": before_ends, "after": after_ends}
    results = Results(
        before={"m": 0.9},
        after={"m": after, "n": 1.0},
        intervals={phase: {"m": pair} for phase, pair in ends.items() if pair is not None},
    )
    assert forgot_nothing(results, "m") is nothing
    assert not forgot_nothing(results, "n"), "it was not evaluated before"


def refused(capsys: Captured, *arguments: str) -> str:
    """Return what the command line says of wrong input: one line, and nothing else."""
    assert main(["compare", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: ")
    return said.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere"], "there is no results.json here"),
        (["FOLDER", "--format", "html"], "--format 'html' is none"),
        (["FOLDER", "--metric", "forget/probabilty"], "did you mean 'forget/probability'"),
        (
            ["FOLDER", "--forgetting", "forget/probabilty"],
            "--forgetting: no run has 'forget/probabilty'; did you mean 'forget/probability'",
        ),
        (
            ["FOLDER", "--retention", "retain/probabilty"],
            "--retention: no run has 'retain/probabilty'; did you mean 'retain/probability'",
        ),
        (["FOLDER", "--at", "forget/probability"], "write a metric and a number"),
        (["FOLDER", *["--at", "a=1", "--chance", "0.25"]], "--chance does not go with --at"),
        (["FOLDER", *["--at", "a=1", "--forgetting", "a"]], "--forgetting does not go with --at"),
        (["FOLDER", *["--at", "a=1", "--retention", "a"]], "--retention does not go with --at"),
        (["FOLDER", *["--at", "a=1", "--pairs"]], "--pairs does not go with --at"),
        (["FOLDER", "--pairs"], "--pairs: no two of FOLDER can be compared row by row"),
        (["FOLDER", "FOLDER"], "is given twice"),
        (["FOLDER", "FOLDER/../a0/results.json"], "is given twice"),
        (["FOLDER", "--chance", "1.5"], "'--chance'"),
        ([], "Missing argument"),
    ],
)
def test_wrong_arguments_are_one_line(
    folders: list[str], capsys: Captured, arguments: list[str], line: str
) -> None:
    said = refused(capsys, *[a.replace("FOLDER", folders[0]) for a in arguments])
    assert line.replace("FOLDER", folders[0]) in said


NUMBER = "must be a number"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "not JSON"),
        ("[]", "not a results file, but []"),
        ({"after": {"m": None}}, f"after.m: {NUMBER} (got None)"),
        ({"after": {"m": "0.5"}}, f"after.m: {NUMBER} (got '0.5')"),
        ({"after": {"m": [0.5]}}, f"after.m: {NUMBER} (got [0.5])"),
        ({"after": {"m": True}}, f"after.m: {NUMBER} (got True)"),
        ({"after": {"m": math.inf}}, "after.m: must be a finite number (got inf)"),
        ({"after": {"m": 10**400}}, "after.m: must be a finite number (got 1000"),
        ({"after": {}, "before": [1]}, "before: Input should be a valid dictionary (got [1])"),
        ({"after": {}, "before": {"m": {}}}, f"before.m: {NUMBER}"),
        ({"after": {}, "steps": "x"}, f"steps: {NUMBER} (got 'x')"),
        ({"after": {}, "trajectory": {"step": 1}}, "trajectory: Input should be a valid list"),
        (
            {"after": {}, "trajectory": [1.5]},
            "trajectory.0: Input should be a valid dictionary (got 1.5)",
        ),
        (
            {"after": {}, "trajectory": [{"step": 1}, {"m": 1}]},
            "trajectory.1: must be values with their step",
        ),
        (
            {"after": {}, "trajectory": [{"step": "one"}]},
            f"trajectory.0.step: {NUMBER} (got 'one')",
        ),
        ({"after": {}, "trajectory": [{"step": 1, "m": None}]}, f"trajectory.0.m: {NUMBER}"),
    ],
)
def test_results_that_are_damaged_are_one_line(
    tmp_path: Path, capsys: Captured, content: Any, line: str
) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "results.json").write_text(text)
    said = refused(capsys, str(tmp_path), "--at", "m=0.5")
    assert f"{tmp_path / 'results.json'}: {line}" in said


def test_results_without_an_evaluation_are_one_line(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "results.json").write_text('{"steps": 3}')
    said = refused(capsys, str(tmp_path))
    assert f"{tmp_path}: its results have no 'after' with values by set/metric" in said


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ("objective: {beta: 1}", ": objective: has no name"),
        ("regularizer: [kl, {weight: 2}]", ": regularizer: has no name"),
        ("combiner: 3", ": combiner: Input should be a valid string or a valid dictionary (got 3)"),
        ("- objective", ": a recipe is a mapping of keys to values"),
        ("", ": a recipe is a mapping of keys to values"),
        ("a: {1: x, b: y}", ": a: unknown key"),
        ("a: [\nb", ":2: not valid YAML: "),
    ],
)
def test_a_recipe_that_is_damaged_is_one_line(
    folders: list[str], capsys: Captured, recipe: str, line: str
) -> None:
    file = Path(folders[0]) / "recipe.yaml"
    file.write_text(recipe)
    assert f"{file}{line}" in refused(capsys, *folders)
