"""A model made from nothing knows what it was shown, and a cut-off finetuning goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from amnesis.errors import DataError, Interrupted, RecipeError
from amnesis.progress import ProgressCallback
from amnesis.runs.finetune import finetune
from amnesis.runs.results import Results

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
}


def recipe(rows: Any, **training: Any) -> dict[str, Any]:
    return {
        "model": {"architecture": "llama", "vocabulary": 300, "config": SIZES},
        "benchmark": {"name": "own", "forget": rows[:4], "retain": rows[4:]},
        "sets": ["forget", "retain"],
        "training": {"steps": 40, "batch_size": 8, "learning_rate": 1e-2, **training},
    }


def pressing_ctrl_c(at: int) -> ProgressCallback:
    """Return what presses Ctrl-C when a step is reported."""

    def press(what: str, done: int, total: int) -> None:
        if done == at:
            signal.raise_signal(signal.SIGINT)

    return press


def test_it_learns_and_is_deterministic(qa_rows: Any, tmp_path: Path) -> None:
    results = [
        finetune(recipe(qa_rows), tmp_path / name, device="cpu").results for name in ("one", "two")
    ]
    losses = [step["train/loss"] for step in results[0].trajectory]
    assert losses[-1] < 0.3 * losses[0]
    assert results[0].trajectory == results[1].trajectory
    assert results[0].steps == len(losses) == 40
    assert results[0].data["train"]["examples"] == 8
    assert results[0].phases() == {}  # it was not evaluated
    weights = [(tmp_path / n / "model" / "model.safetensors").read_bytes() for n in ("one", "two")]
    assert weights[0] == weights[1]
    tokens = [(tmp_path / n / "model" / "tokenizer.json").read_bytes() for n in ("one", "two")]
    assert tokens[0] == tokens[1]


def test_a_finetuned_model_is_a_model_to_start_from(qa_rows: Any, tmp_path: Path) -> None:
    finetune(recipe(qa_rows), tmp_path / "one", device="cpu")
    again = recipe(qa_rows, steps=2)
    again["model"] = {"path": str(tmp_path / "one" / "model")}
    second = finetune(again, tmp_path / "two", device="cpu").results
    first = Results.read(tmp_path / "one")
    assert second.trajectory[0]["train/loss"] == pytest.approx(
        first.trajectory[-1]["train/loss"], rel=0.5
    )


def test_cut_off_and_resumed_it_ends_the_same(qa_rows: Any, tmp_path: Path) -> None:
    made = recipe(qa_rows, save_every=10)
    whole = finetune(made, tmp_path / "whole", device="cpu").results

    # A step is shown when it is over, and what happens then is seen at the end of the next.
    with pytest.raises(Interrupted, match="interrupted after step 18 of 40"):
        finetune(made, tmp_path / "cut", device="cpu", progress=pressing_ctrl_c(at=17))
    cut = finetune(made, tmp_path / "cut", resume=True, device="cpu").results
    assert cut.trajectory == whole.trajectory
    weights = [
        (tmp_path / n / "model" / "model.safetensors").read_bytes() for n in ("whole", "cut")
    ]
    assert weights[0] == weights[1]


def test_quantized_weights_are_refused(qa_rows: Any, tmp_path: Path) -> None:
    made = {**recipe(qa_rows), "model": {"path": str(tmp_path), "quantize": "int8"}}
    with pytest.raises(RecipeError, match="quantized weights do not train"):
        finetune(made, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_other_rows_are_not_gone_on_with(qa_rows: Any, tmp_path: Path) -> None:
    """The recipe may be the same while the file that it names has changed."""
    made = recipe(qa_rows, steps=4, save_every=2)
    file = tmp_path / "forget.jsonl"
    file.write_text("\n".join(map(json.dumps, qa_rows[:4])), encoding="utf-8")
    made["benchmark"]["forget"] = str(file)
    with pytest.raises(Interrupted):
        finetune(made, tmp_path / "run", device="cpu", progress=pressing_ctrl_c(at=2))
    file.write_text("\n".join(map(json.dumps, [qa_rows[4], *qa_rows[1:4]])), encoding="utf-8")
    with pytest.raises(DataError, match="was written by a run over other rows"):
        finetune(made, tmp_path / "run", resume=True, device="cpu")
