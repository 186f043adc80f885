"""Whatever a file or a command line holds ends with exit code 0 or 2, in words, and soon.

``AMNESIS_FUZZ_CASES=10000 pytest tests/end_to_end/test_fuzz.py --hypothesis-show-statistics`` draws
so many recipes, half as many data files and a fifth as many command lines.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tests.end_to_end.fuzzed import Fuzzed, command_lines, data_files, recipes

from amnesis.cli.app import app, main
from amnesis.data.bounded import within
from amnesis.discovery.registry import default_registry
from amnesis.runs.planning import plan
from amnesis.runs.recipe import Recipe

CASES = int(os.environ.get("AMNESIS_FUZZ_CASES", "300"))
LONGEST = 20.0  # seconds


def fuzz(cases: int) -> settings:
    return settings(
        max_examples=cases,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@pytest.fixture
def place(
    tmp_path: Path,
    tiny_folder: Path,
    qa_rows: Any,
    write_rows: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder to work in, with a good recipe, its data, and ``taken``, which may not be used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = write_rows(forget=qa_rows[:4], retain=qa_rows[4:])
    recipe = {
        "model": str(tiny_folder),
        "objective": "ga",
        "regularizer": "nll",
        "combiner": "sago",
        "benchmark": {"name": "own", **{name: str(file) for name, file in files.items()}},
        "training": {"steps": 1},
        "evaluate": {"metrics": ["probability"], "bootstrap": 0},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years of work", encoding="utf-8")
    return tmp_path


@pytest.fixture(autouse=True)
def seldom_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forecast memory in every twentieth check: it goes through a step, for seconds each time."""
    forecast, checks = plan.plan_memory, itertools.count()

    def seldom(*arguments: Any, **options: Any) -> Any:
        return None if next(checks) % 20 else forecast(*arguments, **options)

    monkeypatch.setattr(plan, "plan_memory", seldom)


def outcome(line: list[str], capfd: Any) -> tuple[int, str]:
    """Return a command line's exit code and what it printed, having looked at what it said."""
    with within(LONGEST):
        code = main(line)
    captured = capfd.readouterr()
    assert code in (0, 2), captured.err
    for words in (captured.out, captured.err):
        assert "Traceback" not in words
        assert "defect of amnesis" not in words
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", words), repr(words)
    errors = [one for one in captured.err.splitlines() if one.startswith("error: ")]
    assert len(errors) == (code == 2), captured.err
    event("refused" if code else "accepted")
    return code, str(captured.out)


@fuzz(CASES)
@given(data=st.data())
def test_no_recipe_escapes(place: Path, capfd: Any, data: Any) -> None:
    good = json.loads((place / "recipe.yaml").read_text(encoding="utf-8"))
    made: Fuzzed = data.draw(recipes(good))
    path = place / "fuzzed.yaml"
    path.write_bytes(made.content)
    code, _ = outcome(["run", str(path), "--check", "--device", "cpu"], capfd)
    assert not (made.accepted and code)
    if code == 0:
        import yaml

        keys = yaml.safe_load(made.content).keys()
        assert not made.refused
        assert set(keys) <= set(Recipe.model_fields)


@fuzz(CASES // 2)
@given(drawn=data_files())
def test_no_data_file_escapes(place: Path, capfd: Any, drawn: tuple[str, Fuzzed]) -> None:
    ending, made = drawn
    path = place / f"fuzzed{ending}"
    path.write_bytes(made.content)
    line = ["run", str(place / "recipe.yaml"), f"benchmark.forget={path}", "--check"]
    code, printed = outcome([*line, "--device", "cpu"], capfd)
    if made.rows is not None:
        assert code == 0
        assert f" {made.rows} forget and 4 retain rows" in printed
    assert not (made.refused and code == 0)


def options_of_commands() -> dict[str, list[str]]:
    """Return every command's options, but for the demo's, which needs no input to work for long."""
    group = typer.main.get_command(app)
    registry = default_registry()
    options: dict[str, list[str]] = {}
    with group.make_context("amnesis", ["--help"], obj=registry, resilient_parsing=True) as context:
        for name in set(registry.names("command")) - {"demo"}:
            command = group.get_command(context, name)  # type: ignore[attr-defined]
            with command.make_context(name, [], parent=context, resilient_parsing=True) as inner:
                parameters = inner.command.params
            options[name] = [one for p in parameters for one in p.opts if one.startswith("-")]
    return options


@fuzz(CASES // 5)
@given(data=st.data())
def test_no_command_line_escapes(place: Path, capfd: Any, data: Any) -> None:
    places = ["recipe.yaml", "forget.jsonl", "taken", "nowhere", "model/config.json", "/dev/null"]
    line = data.draw(command_lines(options_of_commands(), places))
    outcome([*line[:1], "--check", *line[1:]] if line[0] == "run" else line, capfd)
    assert (place / "taken" / "thesis.txt").read_text(encoding="utf-8") == "years of work"
