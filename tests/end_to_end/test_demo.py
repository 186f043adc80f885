"""The main job, whole: from nothing to a model that forgot ten people and kept the rest."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from tests.core.training.events import images, picture

from amnesis.cli.app import main


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's folder, and what the terminal showed."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main(["demo", "--out", str(folder)]) == 0
    return folder, printed.getvalue()


@pytest.fixture(scope="module")
def demo(shown: tuple[Path, str]) -> Path:
    return shown[0]


@pytest.mark.slow
def test_it_forgets_ten_people_and_keeps_the_rest(demo: Path) -> None:
    results = json.loads((demo / "results.json").read_text(encoding="utf-8"))
    before, after, retrained = (results[phase] for phase in ("before", "after", "retrained"))
    assert before["forget/extraction_strength"] >= 0.9
    assert after["forget/extraction_strength"] <= 0.1
    assert retrained["forget/extraction_strength"] <= 0.1
    for kept in ("retain", "facts"):
        assert after[f"{kept}/extraction_strength"] >= 0.9
    assert after["forget/rouge_l"] < before["forget/rouge_l"] / 2


@pytest.mark.slow
def test_it_ends_with_the_verdict_the_table_and_the_report(shown: tuple[Path, str]) -> None:
    folder, printed = shown
    verdict = json.loads((folder / "results.json").read_text(encoding="utf-8"))["verdict"]
    assert (verdict["forgetting"], verdict["retention"]) == ("forgotten", "kept")
    assert printed.startswith(verdict["sentence"])
    assert printed.index("extraction strength") > printed.index(verdict["sentence"])
    assert re.search(r"80 steps, [1-9]\d* s in all; everything is in", printed)
    assert printed.endswith(f"Read the report: {folder / 'report.html'}\n")
    page = (folder / "report.html").read_text(encoding="utf-8")
    for text in ("Forgotten", "Kept", "the best remembered first", "G-effect", "retrained"):
        assert text in page
    along = [e for e in json.loads((folder / "results.json").read_text())["trajectory"]
             if "forget/extraction_strength" in e]  # fmt: skip
    assert [entry["step"] for entry in along] == list(range(10, 81, 10))


@pytest.mark.slow
def test_everything_is_left_and_loads(demo: Path) -> None:
    import pyarrow.parquet as pq
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from amnesis.runs.recipe import Recipe

    results = json.loads((demo / "results.json").read_text(encoding="utf-8"))
    assert results["schema"] == "amnesis.results/1"
    for key in ("before", "after", "retrained", "trajectory", "attacks", "lm_eval", "steps",
                "seconds", "environment"):  # fmt: skip
        assert key in results
    assert len(results["trajectory"]) == results["steps"]
    Recipe.load(demo / "recipe.yaml")
    AutoModelForCausalLM.from_pretrained(demo / "model")
    AutoTokenizer.from_pretrained(demo / "model")
    records = pq.read_table(demo / "examples.parquet").to_pylist()
    forgotten = [
        r["value"]
        for r in records
        if (r["phase"], r["set"], r["metric"]) == ("after", "forget", "extraction_strength")
    ]
    assert len(forgotten) == 40
    mean = sum(forgotten) / len(forgotten)
    assert mean == pytest.approx(results["after"]["forget/extraction_strength"])
    board = demo / "tensorboard" / "wga+kl-sago"
    shown = picture(board)
    units = {tag.partition("_in_")[0]: tag for tag in shown}  # small effects say their unit
    for name in ("forget/loss", "retain/loss", "gradients/forget_norm", "gradients/retain_norm",
                 "gradients/cosine", "gradients/conflict_share", "learning_rate",
                 "g_effect/unlearn", "g_effect/retain", "g_effect/unlearn/block_00",
                 "g_effect/retain/block_02"):  # fmt: skip
        logged = [entry["step"] for entry in results["trajectory"] if name in entry]
        assert [step for step, _ in shown[units[name]]] == logged, name
        assert logged[-1] == results["steps"]
    assert min(value for _, value in shown[units["g_effect/unlearn"]]) < 0
    assert [step for step, _ in shown["forget/extraction_strength"]] == [0, *range(10, 81, 10)]
    assert [step for step, _ in images(board, "g_effect/layers")] == [20, 40, 60, 80]


@pytest.mark.slow
def test_a_demo_is_not_overwritten_unasked(demo: Path, capfd: Any) -> None:
    assert main(["demo", "--out", str(demo)]) == 2
    assert "is not empty" in capfd.readouterr().err
