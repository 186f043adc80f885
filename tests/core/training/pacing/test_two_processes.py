"""Two processes find one rate, and it is that of a run on one process but for rounding."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import QUESTIONS
from tests.processes import on_two_ranks

from amnesis import Unlearner

ROWS = [{"question": q, "answer": a} for q, a in QUESTIONS]


def find(rank: int, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = Unlearner(
        model, tokenizer, "ga", "kl", "pcgrad",
        training={"steps": 4, "batch_size": 4, "learning_rate": "auto"},
        output=folder / f"checkpoints-{rank}", device="cpu",
    )  # fmt: skip
    tested = run.find_learning_rate(ROWS[:4], ROWS[4:])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    (folder / f"{rank}.json").write_text(tested.model_dump_json(), encoding="utf-8")


@pytest.mark.usefixtures("tiny_folder")
def test_two_ranks_agree(tmp_path: Path) -> None:
    on_two_ranks(find, tmp_path)
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == two
    find(9, tmp_path)
    alone: Any = json.loads((tmp_path / "9.json").read_text())
    digit = 10 ** (math.floor(math.log10(alone["rate"])) - 1)  # the second, and last, of a rate
    assert one["rate"] == pytest.approx(alone["rate"], abs=1.001 * digit)
    assert len(one["curve"]) == len(alone["curve"])
