"""Two processes evaluate as one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tests.processes import on_two_ranks

import amnesis
from amnesis.contracts import EvaluationSettings, Subject
from amnesis.data.templates import Template

SETTINGS = EvaluationSettings(
    metrics=("probability", "truth_ratio", "rouge_l", "mia_min_k_plus", "mia_gradient_norm"),
    batch_size=3,
    max_new_tokens=5,
    bootstrap=50,
)


def _evaluated(folder: Path, cache: Path | None = None) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    subject = Subject(
        AutoModelForCausalLM.from_pretrained(folder / "model"),
        AutoTokenizer.from_pretrained(folder / "model"),
        Template(),
    )
    own = amnesis.create(
        "benchmark",
        "own",
        **{name: folder / f"{name}.jsonl" for name in ("forget", "retain", "holdout")},
    )
    evaluated = own.evaluate(subject, SETTINGS.model_copy(update={"cache": cache}))
    return {
        "values": evaluated.values,
        "intervals": evaluated.intervals,
        "examples": evaluated.examples,
    }


def _rank(rank: int, folder: Path) -> None:
    (folder / f"rank{rank}.json").write_text(json.dumps(_evaluated(folder)))


def test_two_processes_give_the_same_results_as_one(rich_place: Path) -> None:
    one = _evaluated(rich_place)
    on_two_ranks(_rank, rich_place)
    first, second = (json.loads((rich_place / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["values"].keys() == one["values"].keys()
    for key, value in one["values"].items():
        assert abs(first["values"][key] - value) < 1e-5, key
    places = [[(r["set"], r["row"], r["metric"]) for r in j["examples"]] for j in (first, one)]
    assert places[0] == places[1], "every example once"


def _cached_rank(rank: int, folder: Path) -> None:
    evaluated = _evaluated(folder, folder / f"cache{rank}")
    (folder / f"rank{rank}.json").write_text(json.dumps(evaluated))


def test_an_evaluation_in_one_ranks_cache_serves_both(rich_place: Path) -> None:
    remembered = _evaluated(rich_place, rich_place / "cache0")
    on_two_ranks(_cached_rank, rich_place)
    for rank in range(2):
        found = json.loads((rich_place / f"rank{rank}.json").read_text())
        assert found["values"] == remembered["values"]
    assert not (rich_place / "cache1").exists()
