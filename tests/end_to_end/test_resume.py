"""A run that is killed anywhere and resumed ends as if nothing had happened, to the bit."""

from __future__ import annotations

import json
import multiprocessing
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.core.training.events import pictures
from tests.end_to_end import killed

STEPS, EVERY = 12, 4


@pytest.fixture(scope="module")
def children() -> Any:
    """Processes that start with everything imported, so that ten of them take seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["amnesis.runs.run", "tests.end_to_end.killed"])
    return context


@pytest.fixture
def recipe(tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    tiny_llama.config.attention_dropout = 0.1  # so that the random state matters too
    tiny_llama.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    path = tmp_path / "recipe.json"
    path.write_text(
        json.dumps(
            {
                "model": str(folder),
                "objective": "npo",
                "regularizer": "kl",
                "combiner": "pcgrad",
                "probes": [{"name": "g_effect", "every": 1}],
                "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
                "training": {
                    "steps": STEPS,
                    "batch_size": 2,
                    "learning_rate": 1e-3,
                    "warmup_steps": 2,
                    "save_every": EVERY,
                },
                "evaluate": {"metrics": ["probability"], "bootstrap": 0, "every": 3},
            }
        ),
        encoding="utf-8",
    )
    return path


def run(children: Any, *arguments: Any) -> tuple[int | None, list[str]]:
    """Run in a child; return its exit code and, if it came to the end, its ticks."""
    done = children.SimpleQueue()
    child = children.Process(target=killed.worker, args=(*map(str_or_same, arguments), done))
    child.start()
    child.join(300)
    return child.exitcode, [] if done.empty() else done.get()


def str_or_same(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves, but for its seconds."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    last = folder / "checkpoints" / f"{STEPS:08d}" / f"checkpoint-{STEPS}"
    return {
        "results": {
            key: value
            for key, value in results.items()
            if key not in {"seconds", "finished", "notes"}
        },
        "weights": (folder / "model" / "model.safetensors").read_bytes(),
        "events": pictures(folder / "tensorboard"),
        "optimizer": torch.load(last / "optimizer.pt", weights_only=True)["state"],
    }


def assert_same(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one["results"] == two["results"]
    assert one["weights"] == two["weights"]
    assert one["events"] == two["events"]
    assert one["optimizer"].keys() == two["optimizer"].keys()
    for key, state in one["optimizer"].items():
        for name, value in state.items():
            assert torch.equal(value, two["optimizer"][key][name])


def test_ten_kills_change_nothing(recipe: Path, tmp_path: Path, children: Any) -> None:
    whole = tmp_path / "whole"
    code, ticks = run(children, recipe, whole, None, False)
    assert code == 0
    expected = outcome(whole)
    # The first checkpoint's optimizer: the model's weights are there already, the rest is not.
    inside_checkpoint = ticks.index("save") + 1
    others = [tick for tick in range(1, len(ticks) + 1) if tick != inside_checkpoint]
    drawn = random.Random(7).sample(others, 9)
    for at in [*drawn, inside_checkpoint]:
        cut = tmp_path / f"cut-{at}"
        code, _ = run(children, recipe, cut, at, False)
        assert code == -9, at
        assert not (cut / "results.json").exists()
        if at == inside_checkpoint:
            assert list((cut / "checkpoints").glob("*.partial/*/model.safetensors"))
        code, _ = run(children, recipe, cut, None, True)
        assert code == 0, at
        assert_same(outcome(cut), expected)


def test_a_damaged_checkpoint_is_passed_over_with_a_note(
    recipe: Path, tmp_path: Path, children: Any
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(children, recipe, whole, None, False)[0] == 0
    assert run(children, recipe, cut, None, False)[0] == 0
    (cut / "results.json").unlink()
    (cut / "checkpoints" / "fitted.json").unlink()  # cut off before training came to its end
    newest = cut / "checkpoints" / f"{STEPS:08d}" / f"checkpoint-{STEPS}" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    assert run(children, recipe, cut, None, True)[0] == 0
    assert_same(outcome(cut), outcome(whole))
    notes = json.loads((cut / "results.json").read_text(encoding="utf-8"))["notes"]
    assert any("damaged" in note and "model.safetensors" in note for note in notes), notes
