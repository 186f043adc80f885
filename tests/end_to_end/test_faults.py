"""What a run has done is not lost to what fails after it, and faults are named, not passed over."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.trainer_callback import TrainerCallback

import amnesis
from amnesis.cli.app import main
from amnesis.errors import DataError, Interrupted, OutputError
from amnesis.storage import _SCRATCH
from amnesis_evaluation.metrics.probability import Probability


@pytest.fixture
def recipe(tiny_folder: Path, qa_rows: Any) -> dict[str, Any]:
    return {
        "model": str(tiny_folder),
        "objective": "npo",
        "regularizer": "kl",
        "combiner": "gru",
        "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
        "training": {"steps": 4, "batch_size": 2, "learning_rate": 1e-3, "save_every": 2},
        "evaluate": {"metrics": ["probability"], "bootstrap": 0},
    }


def found(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {
        key: value for key, value in results.items() if key not in {"seconds", "finished", "notes"}
    }


def failing(error: BaseException, calls: int) -> Any:
    """Return a metric's value that fails after so many calls."""
    value, seen = Probability.value, []

    def fail(metric: Probability, answer: Any) -> float:
        seen.append(answer)
        if len(seen) > calls:
            raise error
        return value(metric, answer)

    return fail


@pytest.mark.parametrize("lora", [None, {"r": 2}, {"r": 2, "save": "adapter"}])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_trained_weights_outlive_an_evaluation_that_fails(
    recipe: dict[str, Any],
    lora: dict[str, Any] | None,
    error: BaseException,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if lora is not None:
        recipe["lora"] = lora
    amnesis.run(recipe, tmp_path / "whole", device="cpu")
    rows = sum(len(recipe["benchmark"][name]) for name in ("forget", "retain"))
    monkeypatch.setattr(Probability, "value", failing(error, calls=rows))
    cut = tmp_path / "cut"
    with pytest.raises((DataError, KeyboardInterrupt)):
        amnesis.run(recipe, cut, device="cpu")
    monkeypatch.undo()
    assert not (cut / "results.json").exists()
    weights = sorted((cut / "model").glob("*.safetensors"))
    before = [file.read_bytes() for file in weights]
    assert weights
    amnesis.run(recipe, cut, resume=True, device="cpu")
    assert found(cut) == found(tmp_path / "whole")
    assert [file.read_bytes() for file in weights] == before


def test_while_a_run_lives_no_other_comes_into_its_folder(
    recipe: dict[str, Any], tmp_path: Path, capfd: Any
) -> None:
    out = tmp_path / "out"
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    line = ["run", str(tmp_path / "recipe.yaml"), "--out", str(out), "--device", "cpu"]
    codes: list[int] = []

    def meanwhile(what: str, done: int, total: int) -> None:
        if what == "unlearning" and done in (1, 3):
            codes.extend(main([*line, option]) for option in ("--resume", "--overwrite"))

    amnesis.run(recipe, out, device="cpu", progress=meanwhile)
    assert codes == [2] * 4
    refusals = capfd.readouterr().err.splitlines()
    assert len([one for one in refusals if "another run is at work here" in one]) == 4
    amnesis.run(recipe, tmp_path / "alone", device="cpu")
    assert found(out) == found(tmp_path / "alone")


def test_tensorboard_s_error_is_a_note(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.tensorboard import FileWriter

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileWriter, "add_summary", full)
    results = amnesis.run(recipe, tmp_path / "out", device="cpu").results
    assert results.steps == 4
    noted = [note for note in results.notes if "TensorBoard" in note]
    assert noted == ["TensorBoard's logs end early: [Errno 28] No space left on device"]


class Terminates(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_stops_with_a_checkpoint(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path
) -> None:
    training = {"steps": 6, "batch_size": 2}
    unlearner = amnesis.Unlearner(
        tiny_llama, tiny_tokenizer, "ga", training=training, output=tmp_path, device="cpu",
        callbacks=[Terminates()],
    )  # fmt: skip
    with pytest.raises(Interrupted, match="after step 3 of 6"):
        unlearner.fit(qa_rows[:4])
    assert (tmp_path / f"{3:08d}" / "complete.json").is_file()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_user_s_hidden_files_stay(recipe: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    amnesis.run(recipe, out, device="cpu")
    (out / "results.json").unlink()
    theirs = [out / ".model.backup" / "a", out / "notes" / ".recipe.yaml.d" / "b"]
    ours = out / f".model{_SCRATCH}x1y2" / "model" / "c"
    for path in [*theirs, ours]:
        path.parent.mkdir(parents=True)
        path.write_text("kept", encoding="utf-8")
    amnesis.run(recipe, out, resume=True, device="cpu")
    assert [path.read_text(encoding="utf-8") for path in theirs] == ["kept", "kept"]
    assert not ours.exists()


def test_a_flipped_bit_in_a_checkpoint_is_found(recipe: dict[str, Any], tmp_path: Path) -> None:
    amnesis.run(recipe, tmp_path / "whole", device="cpu")
    out = tmp_path / "out"
    amnesis.run(recipe, out, device="cpu")
    (out / "results.json").unlink()
    (out / "checkpoints" / "fitted.json").unlink()
    for name in ("model.safetensors", "optimizer.pt"):
        file = out / "checkpoints" / f"{4:08d}" / "checkpoint-4" / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    results = amnesis.run(recipe, out, resume=True, device="cpu").results
    assert any("00000004 is damaged" in note for note in results.notes)
    assert found(out) == found(tmp_path / "whole")


def test_another_model_is_not_gone_on_with(
    recipe: dict[str, Any], tiny_llama: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    amnesis.run(recipe, out, device="cpu")
    (out / "results.json").unlink()
    (out / "checkpoints" / "fitted.json").unlink()
    tiny_llama.model.layers[0].mlp.up_proj.weight.data += 1e-3
    tiny_llama.save_pretrained(recipe["model"])
    with pytest.raises(DataError, match="of another model"):
        amnesis.run(recipe, out, resume=True, device="cpu")


def test_what_a_run_reads_is_not_overwritten_by_it(recipe: dict[str, Any], tmp_path: Path) -> None:
    first = amnesis.run(recipe, tmp_path / "out", device="cpu").folder
    again = {**recipe, "model": str(first / "model")}
    with pytest.raises(OutputError, match="would delete it"):
        amnesis.run(again, first, overwrite=True, device="cpu")
    assert (first / "model" / "config.json").is_file()


EXITING = """
import os, sys
import amnesis
from amnesis.contracts import LikelihoodTerm

class Quits(LikelihoodTerm):
    def terms(self, logps, mask, ref_logps=None):
        {how}

@amnesis.hookimpl
def register_objectives(register):
    register("quits", Quits, summary="ends the process")
"""


@pytest.mark.parametrize("how", ["sys.exit(0)", "os._exit(0)"])
def test_a_plugin_that_ends_the_process_is_no_success(
    how: str, recipe: dict[str, Any], install: Any, tmp_path: Path
) -> None:
    install("quitting_plugin", EXITING.format(how=how))
    document = {**recipe, "objective": "quits", "regularizer": None, "combiner": None}
    (tmp_path / "recipe.yaml").write_text(json.dumps(document), encoding="utf-8")
    site = str(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-m", "amnesis", "run", "recipe.yaml", "--out", "out", "--device", "cpu"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": site},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "plugin quitting-plugin 1.0" in done.stderr
    assert "ended the process" in done.stderr


def test_a_model_of_which_no_metric_has_a_value_is_no_empty_success(
    recipe: dict[str, Any], tiny_llama: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.no_grad():
        tiny_llama.lm_head.weight.fill_(torch.nan)
    tiny_llama.save_pretrained(recipe["model"])
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    line = ["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]
    assert main([*line, "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "no metric has a value" in said
    assert "defect" not in said
    assert not (tmp_path / "out" / "results.json").exists()


def test_no_spreadsheet_runs_what_a_folder_is_called(
    recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for steps, name in enumerate(("=1+1", "@sum", "plain"), start=1):
        document = {**recipe, "training": {**recipe["training"], "steps": steps}}
        amnesis.run(document, tmp_path / name, device="cpu")
        (tmp_path / name / "recipe.yaml").unlink()  # so that the run is called as its folder is
    capsys.readouterr()
    assert main(["compare", "=1+1", "@sum", "plain", "--format", "csv"]) == 0
    text = capsys.readouterr().out
    cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
    assert any("=1+1" in cell for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]
