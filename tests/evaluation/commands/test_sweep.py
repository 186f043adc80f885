"""`amnesis sweep`: configurations, the study that processes share, and what comes out of it."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from amnesis.cli.app import main
from amnesis.errors import OutputError, RecipeError
from amnesis_evaluation.commands.sweep import work
from amnesis_evaluation.commands.sweep.settings import Range, Sweep, label_of
from amnesis_evaluation.commands.sweep.space import Configuration, Space
from amnesis_evaluation.commands.sweep.study import SharedStudy

DIRECTIONS = ("minimize", "maximize")


def study_of(sweep: Sweep, folder: Path) -> SharedStudy:
    return SharedStudy.open(sweep, Space(sweep, sweep.recipe), folder, DIRECTIONS)


def claims_of(*studies: SharedStudy) -> list[tuple[int, Configuration]]:
    """Claim in turn until nothing is left; every claim is finished at once."""
    claims: list[tuple[int, Configuration]] = []
    for study in itertools.cycle(studies):
        claimed = study.claim()
        if claimed is None:
            return claims
        claims.append((claimed.number, claimed.configuration))
        study.finish(claimed, (claimed.number / 10, 0.5))
    return claims


# -- configurations -------------------------------------------------------------------------------

VALUES = st.lists(
    st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["npo", "ga", "x y"]),
    min_size=1,
    max_size=3,
    unique_by=label_of,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b.c", "b.d"]), VALUES, min_size=1),
    st.dictionaries(st.sampled_from(["first", "second"]), st.dictionaries(st.just("e"), VALUES)),
)
def test_a_grid_has_every_combination_once(space: Any, methods: Any) -> None:
    sweep = Sweep.parse({"recipe": {}, "space": space, "methods": methods})
    points = [
        (method, {**own, **shared})
        for method, keys in (methods or {None: {}}).items()
        for own in combinations(keys)
        for shared in combinations(space)
    ]
    grid = list(Space(sweep, {}).grid())
    assert len(grid) == Space(sweep, {}).size() == len(points)
    for method, values in points:
        assert sum((c.method, c.values) == (method, values) for c in grid) >= 1
    distributions = [Space(sweep, {}).stored(configuration) for configuration in grid]
    assert [Space(sweep, {}).read(stored) for stored in distributions] == grid


def combinations(keys: dict[str, list[Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{}]
    for key, values in keys.items():
        found = [{**one, key: value} for one in found for value in values]
    return found


@given(st.floats(1e-8, 1), st.floats(1.5, 1e4), st.integers(2, 9), st.booleans())
def test_a_range_has_its_ends_and_even_distances(
    low: float, factor: float, points: int, log: bool
) -> None:
    values = Range(low=low, high=low * factor, log=log, points=points).values()
    assert (values[0], values[-1], len(values)) == (low, low * factor, points)
    scaled = [math.log(value) for value in values] if log else values
    for a, b in itertools.pairwise(scaled):
        expected = (scaled[-1] - scaled[0]) / (points - 1)
        assert b - a == pytest.approx(expected, rel=1e-2, abs=1e-5 * abs(scaled[-1]))


def test_a_range_of_whole_numbers_has_whole_points() -> None:
    assert Range(low=1, high=4, points=9).values() == [1, 2, 3, 4]
    assert Range(low=1, high=100, log=True, points=3).values() == [1, 10, 100]


def test_what_holds_others_is_set_first_and_the_base_stays() -> None:
    base = {"model": "m", "benchmark": "fictional", "objective": "ga", "training": {"steps": 3}}
    sweep = Sweep.parse({"recipe": base, "space": {"objective.beta": [0.5], "objective": ["npo"]}})
    space = Space(sweep, sweep.recipe)
    (configuration,) = space.grid()
    recipe = space.recipe(configuration, 7)
    assert recipe.objective == {"name": "npo", "beta": 0.5}
    assert (recipe.seed, recipe.training.steps, sweep.recipe) == (7, 3, base)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "nothing is varied"),
        ({"space": {"a": [1, 1]}}, "stands in the choices twice"),
        ({"space": {"a": []}}, "at least 1 item"),
        ({"space": {"a": {"low": 2, "high": 1}}}, "low (2) must be below high (1)"),
        ({"space": {"a": {"low": 0, "high": 1, "log": True, "points": 3}}}, "low above 0"),
        ({"space": {"a": {"low": 1, "high": 2}}}, "say points"),
        ({"space": {"a": {"low": 1, "hihg": 2}}}, "hihg"),
        ({"space": {"a": [1]}, "methods": {"m": {"a": [2]}}}, "and in the method 'm'"),
        ({"space": {"seed": [1, 2]}}, "name the repetitions in seeds"),
        ({"space": {"a": [1]}, "seeds": [0, 0]}, "seeds must be distinct"),
        ({"space": {"a": [1]}, "trials": 3}, "leave it out"),
        ({"space": {"a": [1]}, "search": "tpe"}, "how many configurations tpe is to draw"),
        ({"space": {"a": [1]}, "storage": "sqlit"}, "storage"),
        ({"space": {"a": [1]}, "spce": {}}, "did you mean 'space'"),
    ],
)
def test_a_sweep_file_that_cannot_be_meant_is_refused(document: Any, message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        Sweep.parse({"recipe": {}, **document})
    assert message in str(refused.value)


# -- the study ------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_trial_is_claimed_once_and_taken_up_where_its_process_is_gone(
    tmp_path: Path, storage: str
) -> None:
    space = {"a": [1, 2, 3], "b": ["x", None]}
    sweep = Sweep.parse({"recipe": {}, "space": space, "storage": storage})
    one, two = study_of(sweep, tmp_path / "s"), study_of(sweep, tmp_path / "s")
    first, second = one.claim(), two.claim()
    assert first is not None
    assert second is not None
    assert first.number != second.number
    assert [t.state for t in two.trials()].count("running") == 2
    two.let_go()  # as the system does where the process is killed
    taken_up = one.claim()
    assert taken_up == second
    one.finish(first, (0.1, 0.9))
    one.fail(second, "it is not finite")
    rest = claims_of(one, two)
    assert len(rest) == 4
    found = [trial.configuration for trial in study_of(sweep, tmp_path / "s").trials()]
    assert found == list(Space(sweep, {}).grid())
    states = [trial.state for trial in one.trials()]
    assert (states.count("finished"), states.count("failed"), len(states)) == (5, 1, 6)
    assert one.trials()[second.number].note == "it is not finite"
    assert one.claim() is two.claim() is None


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_draws_depend_on_the_trial_alone_and_a_repetition_is_not_run(
    tmp_path: Path, search: str
) -> None:
    document = {
        "recipe": {},
        "methods": {"m": {"a": ["x", "y"]}, "n": {"a": {"low": 1, "high": 3}, "c": ["z"]}},
        "search": search,
        "trials": 14,
        "storage": "journal",
    }
    sweep = Sweep.parse(document)
    alone, *pair = (study_of(sweep, tmp_path / name) for name in ("alone", "pair", "pair"))
    claims = claims_of(alone)
    assert claims_of(*pair) == claims
    assert len({str(configuration) for _, configuration in claims}) == len(claims) <= 5
    trials = alone.trials()
    assert len(trials) == 14
    repeated = [trial for trial in trials if trial.state == "repeated"]
    assert len(repeated) == 14 - len(claims)
    for trial in repeated:
        original = trials[int(trial.note.rpartition(" ")[2])]
        assert (original.configuration, original.goals) == (trial.configuration, trial.goals)
    more = study_of(Sweep.parse({**document, "trials": 15}), tmp_path / "alone")
    assert len(claims_of(more)) <= 1
    assert len(more.trials()) == 15


def test_a_trial_lost_before_it_was_drawn_is_drawn_again(tmp_path: Path) -> None:
    sweep = Sweep.parse(
        {"recipe": {}, "space": {"a": {"low": 0.0, "high": 1.0}}, "search": "random", "trials": 3}
    )
    study = study_of(sweep, tmp_path / "s")
    study._study.ask()  # and killed
    assert len(claims_of(study)) == 3
    assert len(study.trials()) == 3


def test_a_folder_holds_one_sweep(tmp_path: Path) -> None:
    sweep = Sweep.parse({"recipe": {"seed": 0}, "space": {"a": [1, 2]}})
    study_of(sweep, tmp_path / "s")
    other = Sweep.parse({"recipe": {"seed": 1}, "space": {"a": [1, 2]}})
    with pytest.raises(OutputError, match="holds another sweep"):
        study_of(other, tmp_path / "s")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds no sweep"):
        study_of(sweep, tmp_path / "notes")


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def sweep_file(tiny_folder: Path, qa_rows: Any, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a sweep of short runs, changed by its arguments."""
    recipe = {
        "model": str(tiny_folder),
        "objective": "ga",
        "benchmark": {"name": "own", "forget": qa_rows[:3], "retain": qa_rows[3:6]},
        "training": {"steps": 1, "batch_size": 3, "learning_rate": 1e-3},
        "evaluate": {"metrics": ["probability"], "bootstrap": 0, "keep_answers": False},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def write(**changes: Any) -> Path:
        space = {"training.learning_rate": [1e-3, 1e-2]}
        document = {"recipe": "base.yaml", "space": space, **changes}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"space": {"training.learning_rat": [1, 2]}}, ["did you mean 'learning_rate'"]),
        ({"space": {"objective": ["npo"], "objective.bta": [1.0]}}, ["bta", "beta"]),
        ({"space": {"objective": ["npoo", "npo"], "probes": [["g_efect"]]}}, ["npoo", "g_efect"]),
        ({"space": {"combiner": [None, "sago"], "regularizer": [None, "nll"]}}, ["retain stream"]),
        ({"forgetting": "forget/probabilty"}, ["did you mean 'forget/probability'"]),
        ({"recipe": "nowhere.yaml"}, ["there is no such recipe"]),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    sweep_file: Any, tmp_path: Path, capsys: Any, changes: Any, messages: list[str]
) -> None:
    line = ["sweep", str(sweep_file(**changes)), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(line) == 2
    said = capsys.readouterr().err
    for message in messages:
        assert message in said
    assert not (tmp_path / "out").exists()


def test_a_sweep_is_ordinary_runs_and_none_is_run_twice(
    sweep_file: Any, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    file = sweep_file(
        methods={"ga": {"objective": "ga"}, "npo+nll": {"objective": "npo", "regularizer": "nll"}},
        seeds=[0, 5],
    )
    line = ["sweep", str(file), "--device", "cpu"]
    assert main([*line, "--check", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["trials"], plan["seeds"]) == (4, [0, 5])
    assert plan["goals"] == ["forget/probability", "retain/probability"]
    assert main([*line, "--out", str(out), "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    lines = [line for line in said.err.splitlines() if line.startswith("trial ")]
    assert len(lines) == 4
    assert not any("left" in line or "done" in line for line in lines), "progress says how far"
    assert json.loads((out / "sweep.json").read_text(encoding="utf-8")) == found
    assert [trial["state"] for trial in found["trials"]] == ["finished"] * 4
    assert any(trial["front"] for trial in found["trials"])
    for trial in found["trials"]:
        values = []
        for folder, seed in zip(trial["folders"], [0, 5], strict=True):
            recipe = yaml.safe_load((Path(folder) / "recipe.yaml").read_text(encoding="utf-8"))
            assert recipe["seed"] == seed
            rate = trial["values"]["training.learning_rate"]
            assert recipe["training"]["learning_rate"] == rate
            results = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
            values.append([results["after"][f"{of}/probability"] for of in ("forget", "retain")])
        assert trial["goals"] == pytest.approx([sum(v) / 2 for v in zip(*values, strict=True)])
    before = {file: file.stat().st_mtime_ns for file in out.rglob("results.json")}
    assert len(before) == 8
    assert main([*line, "--out", str(out)]) == 0
    assert {file: file.stat().st_mtime_ns for file in out.rglob("results.json")} == before
    assert "★ on the Pareto front of forget/probability (low)" in capsys.readouterr().out
    assert main(["compare", *(folder for t in found["trials"] for folder in t["folders"])]) == 0


def test_what_a_trial_could_set_otherwise_is_not_said_of_each(
    sweep_file: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any, **__: Any) -> None:
        logging.getLogger("amnesis.training").warning("hardly moved")
        raise RecipeError("no rate is right")

    monkeypatch.setattr(work, "run", slow)
    assert main(["sweep", str(sweep_file()), "--device", "cpu", "--out", str(tmp_path / "o")]) == 0
    said = capsys.readouterr()
    assert "no rate is right" in said.out
    assert "hardly moved" not in said.out + said.err


def test_a_configuration_that_fails_does_not_stop_the_others(
    sweep_file: Any, tmp_path: Path, capsys: Any
) -> None:
    space = {"training.learning_rate": [1e4, 1e-3], "training": [{"steps": 6, "optimizer": "sgd"}]}
    file = sweep_file(space=space, retention={"metric": "retain/probability"})
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "trial 0 failed: seed 0:" in said
    found = json.loads((tmp_path / "out" / "sweep.json").read_text(encoding="utf-8"))
    assert [trial["state"] for trial in found["trials"]] == ["failed", "finished"]


def test_directions_can_be_turned_round(sweep_file: Any, tmp_path: Path) -> None:
    turned = {
        "forgetting": {"metric": "forget/probability", "direction": "maximize"},
        "retention": {"metric": "forget/probability", "direction": "maximize"},
    }
    file = sweep_file(**turned)
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "out" / "sweep.json").read_text(encoding="utf-8"))
    gentle, strong = found["trials"]
    assert gentle["goals"][0] > strong["goals"][0]
    assert (gentle["front"], strong["front"]) == (True, False)


@pytest.mark.parametrize("option", [["--engine", "slurm"], ["--workers", "2"]])
def test_options_that_do_not_go_together_are_refused(sweep_file: Any, option: list[str]) -> None:
    assert main(["sweep", str(sweep_file()), *option]) == 2
