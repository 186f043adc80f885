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
from typer.testing import CliRunner

import amnesis
from amnesis.cli import app
from amnesis.errors import AmnesisError, DataError, RecipeError
from amnesis_evaluation.comparison import (
    Run,
    Target,
    at_target,
    grouped,
    mean_and_error,
    pareto_front,
)
from amnesis_evaluation.tables import Table


def run_folder(
    path: Path, forget: float, retain: float, *, seed: int = 0, objective: str = "ga", **more: Any
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
    step, values = at_target(run, Target.parse("forget/probability=0.3"), ["retain/probability"])
    assert step == pytest.approx(15)
    assert values == {"retain/probability": pytest.approx(0.6)}
    step, values = at_target(run, Target("forget/probability", 0.7), ["retain/probability"])
    assert (step, values["retain/probability"]) == (pytest.approx(5), pytest.approx(0.75))
    step, _ = at_target(run, Target("forget/probability", 0.9), [])
    assert step == 0
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


TABLE = Table("title", ["run", "50 %_x"], [["a|b & c", "0.1 ± 0.2"], ["d", "–"]])


def test_tables_in_every_form() -> None:
    assert TABLE.markdown().splitlines() == [
        "| run | 50 %_x |",
        "| --- | ---: |",
        "| a\\|b & c | 0.1 ± 0.2 |",
        "| d | – |",
    ]
    assert list(csv.reader(io.StringIO(TABLE.csv()))) == [list(TABLE.columns), *TABLE.rows]
    latex = TABLE.latex()
    assert r"run & 50 \%\_x \\" in latex
    assert r"a|b \& c & 0.1 $\pm$ 0.2 \\" in latex
    assert latex.startswith("\\begin{tabular}{lr}\n\\toprule")
    assert TABLE.rich().row_count == 2


def command(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["compare", *arguments], catch_exceptions=True)
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    return [
        str(run_folder(tmp_path / "a0", 0.1, 0.6)),
        str(run_folder(tmp_path / "a1", 0.3, 0.8, seed=1)),
        str(run_folder(tmp_path / "b", 0.3, 0.6, objective="npo")),
    ]


def test_the_command_marks_the_front_and_gives_recovery(folders: list[str]) -> None:
    output = command(*folders, "--format", "csv", "--chance", "0.4")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert [row["front"] for row in rows] == ["★", ""]
    assert rows[0]["forget/probability"] == "0.200 ± 0.100"
    assert rows[0]["recovery of retain/probability"] == "0.875 ± 0.125"
    assert rows[0]["recovery_above_0.4 of retain/probability"] == "0.750 ± 0.250"
    assert rows[1]["seeds"] == "1"


def test_the_command_compares_at_equal_forgetting(folders: list[str]) -> None:
    output = command(*folders, "--at", "forget/probability=0.3", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(output.split("note:")[0])))
    assert rows[0]["reached"] == "2/2"
    assert rows[0]["steps"] == "17.5 ± 2.5"
    assert rows[1]["retain/probability"] == "0.600"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere"], "there is no results.json here"),
        (["FOLDER", "--format", "html"], "--format 'html' is none"),
        (["FOLDER", "--metric", "forget/probabilty"], "did you mean 'forget/probability'"),
        (["FOLDER", "--at", "forget/probability"], "write a metric and a number"),
    ],
)
def test_wrong_arguments_are_one_line(folders: list[str], arguments: list[str], line: str) -> None:
    with pytest.raises(AmnesisError) as caught:
        command(*[folders[0] if a == "FOLDER" else a for a in arguments])
    assert line in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line"), [("{", "not JSON"), ("[]", "not a results file"), ("{}", "no 'after'")]
)
def test_a_file_that_is_no_results_is_one_line(tmp_path: Path, content: str, line: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=line):
        Run.load(tmp_path)
