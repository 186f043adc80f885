"""The card of a run's model says what was done, and nothing of what had to be forgotten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import amnesis
from amnesis.cli.app import main
from amnesis.runs.results import Results


@pytest.fixture
def made(tiny_folder: Path, qa_rows: Any, tmp_path: Path) -> dict[str, Any]:
    for name, rows in (("forget", qa_rows[:4]), ("retain", qa_rows[4:])):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    return {
        "name": "a | strange *name*",
        "model": str(tiny_folder),
        "objective": "npo",
        "regularizer": "nll",
        "benchmark": {
            "name": "own",
            "forget": str(tmp_path / "forget.json"),
            "retain": qa_rows[4:],
        },
        "training": {"steps": 2, "batch_size": 4},
        "evaluate": {"metrics": ["probability"]},
        "attacks": ["quantization"],
    }


def test_a_run_leaves_the_model_s_card(made: dict[str, Any], qa_rows: Any, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    results = amnesis.run(made, folder, device="cpu").results
    text = (folder / "model" / "README.md").read_text(encoding="utf-8")
    data: Any = ModelCard(text).data  # as the hub reads it
    assert data.library_name == "transformers"
    assert {"unlearning", "amnesis", "npo"} <= set(data.tags)
    assert data.base_model is None, "a folder of this machine is nobody else's base model"
    values = {r.dataset_type: r.metric_value for r in data.eval_results}
    assert results.after is not None
    assert values["own/forget"] == pytest.approx(results.after["forget/probability"])
    assert results.verdict is not None
    for words in ("a \\| strange", "4 examples had to be forgotten", "What was not measured",
                  "Under attack", results.fingerprints["after"], f"{results.finished}"):  # fmt: skip
        assert words in text
    low, high = results.intervals["after"]["forget/probability"]
    assert f"{low:.3g} to {high:.3g}" in text
    for row in qa_rows:
        assert row["question"] not in text
        assert row["answer"] not in text
    assert str(tmp_path) not in text, "no path of this machine"


def test_an_owner_s_card_stays(made: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    amnesis.run(made, folder, device="cpu")
    card = folder / "model" / "README.md"
    ours = card.read_text(encoding="utf-8")
    card.write_text(ours.replace("amnesis", "somebody"), encoding="utf-8")
    assert main(["report", str(folder)]) == 0
    assert "somebody" in card.read_text(encoding="utf-8")
    card.unlink()
    assert main(["report", str(folder)]) == 0
    assert card.read_text(encoding="utf-8") == ours


def test_a_run_that_was_cut_off_after_its_card_goes_on(
    made: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    whole = amnesis.run(made, folder, device="cpu").results
    (folder / "results.json").unlink()
    again = amnesis.run(made, folder, device="cpu", resume=True).results
    assert again.after == whole.after
    assert again.fingerprints == whole.fingerprints


def test_an_adapter_has_our_card_in_place_of_peft_s(made: dict[str, Any], tmp_path: Path) -> None:
    made["lora"] = {"r": 2, "save": "adapter"}
    amnesis.run(made, tmp_path / "out", device="cpu")
    text = (tmp_path / "out" / "model" / "README.md").read_text(encoding="utf-8")
    assert "More Information Needed" not in text
    data: Any = ModelCard(text).data
    assert data.library_name == "peft"


def test_results_say_the_command_and_what_was_used(
    made: dict[str, Any], tmp_path: Path, capfd: Any
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "with a space"
    recipe.write_text(json.dumps(made), encoding="utf-8")
    assert main(["run", str(recipe), "seed=3", "--out", str(out)]) == 0
    results = Results.read(out)
    assert results.command == f"amnesis run {recipe} seed=3 --out '{out}'"
    assert set(results.fingerprints) == {"before", "after", "forget rows", "retain rows"}
    assert results.fingerprints["before"] != results.fingerprints["after"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert results.fingerprints["after"] in page
    assert "amnesis run" in page
