"""Two processes judge as one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

import amnesis
from amnesis.contracts import EvaluationSettings, Subject
from amnesis.data import Template

SETTINGS = EvaluationSettings(
    metrics=("probability", "truth_ratio", "rouge_l", "mia_min_k_plus", "mia_gradient_norm"),
    batch_size=3,
    max_new_tokens=5,
    bootstrap=50,
)


def _judged(folder: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    subject = Subject(
        AutoModelForCausalLM.from_pretrained(folder / "m"),
        AutoTokenizer.from_pretrained(folder / "m"),
        Template(),
    )
    own = amnesis.create(
        "benchmark",
        "own",
        **{name: folder / f"{name}.jsonl" for name in ("forget", "retain", "holdout")},
    )
    judged = own.evaluate(subject, SETTINGS)
    return {"values": judged.values, "intervals": judged.intervals, "examples": judged.examples}


def _rank(rank: int, ranks: int, folder: Path) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=ranks)
    (folder / f"rank{rank}.json").write_text(json.dumps(_judged(folder)))
    dist.destroy_process_group()


def test_two_processes_give_the_same_results_as_one(
    tmp_path: Path, tiny_llama: Any, tiny_tokenizer: Any, rich_rows: list[dict[str, Any]]
) -> None:
    tiny_llama.save_pretrained(tmp_path / "m")
    tiny_tokenizer.save_pretrained(tmp_path / "m")
    for name, rows in (
        ("forget", rich_rows[:3]),
        ("retain", rich_rows[3:5]),
        ("holdout", rich_rows[5:]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one = _judged(tmp_path)
    mp.spawn(_rank, (2, tmp_path), nprocs=2)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["values"].keys() == one["values"].keys()
    for key, value in one["values"].items():
        assert abs(first["values"][key] - value) < 1e-5, key
    places = [[(r["set"], r["row"], r["metric"]) for r in j["examples"]] for j in (first, one)]
    assert places[0] == places[1], "every example once"
