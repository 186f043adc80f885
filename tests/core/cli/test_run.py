"""``amnesis run`` and ``amnesis finetune``: what a line asks for is what is done, and is shown."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from tests.core.cli.lines import one_line
from tests.core.strangers import registry_with, stranger

from amnesis.cli.app import main
from amnesis.cli.run import data_notes, phases_table
from amnesis.contracts import Benchmark, Evaluation, LikelihoodTerm, Probe, StepContext
from amnesis.runs.results import Results

Written = Callable[..., Path]
COMMANDS = ("run", "finetune")


class Ascent(LikelihoodTerm):
    def terms(self, logps: Any, mask: Any, ref_logps: Any = None) -> Any:
        return logps


class CtrlC(Probe):
    """Presses Ctrl-C in the midst of the second step."""

    def report(self, context: StepContext, state: Any) -> tuple[Mapping[str, float], Any]:
        if context.step == 1:
            signal.raise_signal(signal.SIGINT)
        return {}, state


class FourRows(Benchmark):
    def sets(self) -> dict[str, list[dict[str, str]]]:
        rows = [{"question": f"Which is {k}?", "answer": f"Number {k}."} for k in range(4)]
        return {"forget": rows[:2], "retain": rows[2:]}

    def evaluate(self, subject: Any, settings: Any, progress: Any = None, **_: Any) -> Evaluation:
        return Evaluation({"forget/rows": 2.0})


@pytest.fixture
def written(tmp_path: Path, tiny_folder: Path, qa_rows: Any) -> Written:
    """Return a function that writes the recipe of a command, small, with changes."""

    def written(command: str, **changes: Any) -> Path:
        recipe: dict[str, Any] = {
            "model": str(tiny_folder),
            "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
            "training": {"steps": 1, "batch_size": 2},
        }
        if command == "run":
            recipe["objective"] = "ga"
            recipe["evaluate"] = {"metrics": ["probability"], "bootstrap": 0}
        else:
            recipe["sets"] = ["forget"]
        path = tmp_path / f"{command}.yaml"
        path.write_text(yaml.safe_dump({**recipe, **changes}), encoding="utf-8")
        return path

    return written


@pytest.mark.parametrize("command", COMMANDS)
def test_it_does_what_recipe_and_overrides_say_in_the_folder_that_is_named(
    command: str, written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    line = [command, str(written(command)), "training={optimizer: sgd}", "training.steps=2"]
    assert main([*line, "--out", str(out), "--device", "cpu"]) == 0
    resolved = yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8"))
    assert resolved["training"]["optimizer"] == "sgd"
    results = Results.read(out)
    assert results.steps == 2
    assert results.environment["device"] == "cpu"
    assert results.environment.get("engine") == ("builtin" if command == "run" else None)
    said = " ".join(capsys.readouterr().out.split())
    assert f"2 steps, {results.seconds} s" in said
    if command == "run":
        assert results.before is not None
        assert f"{results.before['forget/probability']:.3f}" in said
    else:
        assert f"last loss {results.trajectory[-1]['train/loss']:.4f}" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_without_out_it_makes_a_new_folder_of_the_command_s_name(
    command: str, written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, str(written(command)), "--device", "cpu"]) == 0
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name.startswith(f"{command}-2")
    assert (made / "results.json").is_file()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_finished_one_is_resumed_to_nothing_refused_and_overwritten(
    command: str, written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [command, str(written(command)), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(line) == 0
    first = (tmp_path / "out" / "results.json").read_bytes()
    assert main([*line, "--resume"]) == 0
    assert (tmp_path / "out" / "results.json").read_bytes() == first
    capsys.readouterr()
    assert main(line) == 2
    assert "is not empty" in one_line(capsys)
    assert main([*line, "seed=1", "--overwrite"]) == 0
    assert (tmp_path / "out" / "results.json").read_bytes() != first


@pytest.mark.parametrize("command", COMMANDS)
def test_resuming_needs_the_folder(
    command: str, written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(written(command)), "--resume"]) == 2
    assert "--resume needs --out" in one_line(capsys)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", [[], ["--device", "gpu9"]])
def test_a_check_stops_before_anything_is_made(
    command: str,
    option: list[str],
    written: Written,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    line = [command, str(written(command)), "training.steps=7", "--check", "--out", str(out)]
    assert main([*line, *option]) == (2 if option else 0)
    captured = capsys.readouterr()
    assert ("'gpu9' cannot be used here" in captured.err) if option else "7 steps" in captured.out
    assert not out.exists()


def test_names_are_looked_up_in_the_line_s_registry(
    written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(written("run", objective="ascent", benchmark="four_rows"))
    registry = registry_with(
        stranger(objective={"ascent": Ascent}, benchmark={"four_rows": FourRows})
    )
    assert main(["run", recipe, "--check"]) == 2
    assert "no objective is called 'ascent'" in capsys.readouterr().err
    assert main(["run", recipe, "--check"], registry=registry) == 0
    assert "2 forget and 0 retain rows" in capsys.readouterr().out
    assert main(["finetune", str(written("finetune", benchmark="four_rows")), "--check"]) == 2
    finetuning = str(written("finetune", benchmark="four_rows", sets=["retain", "forget"]))
    assert main(["finetune", finetuning, "--check"], registry=registry) == 0
    assert "1 steps over 4 rows" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_plugin_that_is_left_out_is_left_out_of_the_recipe_too(
    command: str, written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [command, str(written(command)), "--check", "--without-plugin"]
    assert main([*line, "benchmarks"]) == 2
    assert "left out: plugin amnesis" in capsys.readouterr().err
    assert main([*line, "attacks"]) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_s_own_code_is_run_where_it_is_trusted(
    command: str,
    written: Written,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    theirs = tmp_path / "theirs"
    shutil.copytree(tiny_folder, theirs)
    code = (
        "from transformers import LlamaConfig\nclass Mine(LlamaConfig):\n    model_type = 'mine'\n"
    )
    (theirs / "mine.py").write_text(code, encoding="utf-8")
    config = json.loads((theirs / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (theirs / "config.json").write_text(json.dumps(config), encoding="utf-8")
    line = [command, str(written(command, model=str(theirs))), "--check"]
    assert main(line) == 2
    assert "custom code" in capsys.readouterr().err
    assert main([*line, "--trust-remote-code"]) == 0


def test_ctrl_c_says_the_line_that_goes_on_from_there(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = registry_with(stranger(probe={"ctrl_c": CtrlC}))
    recipe = str(written("run", probes=["ctrl_c"]))
    line = ["run", recipe, "training.steps=3", "--out", str(tmp_path / "a folder")]
    assert main([*line, "--quiet"], registry=registry) == 130
    said = one_line(capsys)
    stopped, _, again = said.partition("; go on with: ")
    assert stopped == "interrupted after step 2 of 3"
    assert shlex.split(again) == ["amnesis", *line, "--resume"]
    assert not (tmp_path / "a folder" / "results.json").exists()
    assert main(shlex.split(again)[1:], registry=registry) == 0
    assert Results.read(tmp_path / "a folder").steps == 3


def test_what_was_done_to_the_data_is_said_in_words() -> None:
    clean = {"examples": 4, "truncated": 0, "dropped": 0, "duplicates": 0}
    assert data_notes({"forget": clean, "retain": clean}) == []
    assert data_notes(
        {
            "forget": {**clean, "truncated": 3, "duplicates": 2},
            "retain": {**clean, "dropped": 1, "also_in_forget": 4},
        }
    ) == [
        "examples of the forget set cut at max_length: 3",
        "examples of the forget set that repeat others: 2",
        "examples of the retain set left out, since nothing of their answers fits: 1",
        "examples of the retain set that are in the forget set too: 4",
    ]


def test_the_table_shows_every_phase_and_what_has_no_value() -> None:
    results = Results(
        before={"forget/probability": 0.98765, "[b]": 1.0},
        after={"forget/probability": 0.01},
        retrained={"forget/probability": 0.02, "[b]": 3.0},
    )
    console = Console(width=100)
    with console.capture() as captured:
        console.print(phases_table(results))
    lines = captured.get().replace("│", " ").replace("┃", " ").splitlines()
    rows = [line.split() for line in lines]
    assert ["metric", "before", "after", "retrained"] in rows
    assert ["forget/probability", "0.988", "0.010", "0.020"] in rows
    assert ["[b]", "1.000", "–", "3.000"] in rows


def test_a_retrained_model_is_compared_with_by_a_metric_that_is_named(
    written: Written, tmp_path: Path, tiny_folder: Path, qa_rows: Any
) -> None:
    rows = [{**row, "perturbed_answer": ["No."], "paraphrased_answer": "So."} for row in qa_rows]
    recipe = written(
        "run",
        retrained=str(tiny_folder),
        benchmark={"name": "own", "forget": rows[:4], "retain": rows[4:]},
        evaluate={"metrics": ["forget_quality"], "bootstrap": 0},
    )
    assert main(["run", str(recipe), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    results = Results.read(tmp_path / "out")
    assert (results.before or {})["forget_quality"] == 1
    assert "forget_quality" not in (results.retrained or {})
