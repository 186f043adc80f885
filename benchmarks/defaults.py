"""Which defaults forget: the README's own-data recipe on small models of different size and rate.

    python benchmarks/defaults.py --out benchmarks/results          # saved as it goes, resumable
    python benchmarks/defaults.py --out benchmarks/results --table  # the table of what is there

Each model is trained from nothing on invented people at a rate of its own, and then unlearned from
CSV files by the recipe as it stands in the README but for its defaults: the way to a learning rate,
and what ends the run. Nothing is tuned to a model. "Forgot" is a forget probability below 0.1.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import amnesis
from amnesis.cli import quiet_libraries

TARGET = 0.1
SETS = ("forget", "retain", "holdout", "facts")
# Architecture, configuration, learning rate and epochs of the training from nothing.
MODELS: dict[str, tuple[str, dict[str, Any], float, int]] = {
    "llama, 64 wide": ("llama", {"hidden_size": 64, "intermediate_size": 192}, 1e-2, 20),
    "llama, 160 wide": (
        "llama",
        {"hidden_size": 160, "intermediate_size": 480, "num_hidden_layers": 3},
        4e-3,
        14,
    ),
    "llama, 160 wide, 2e-3": (
        "llama",
        {"hidden_size": 160, "intermediate_size": 480, "num_hidden_layers": 3},
        2e-3,
        9,
    ),
    "gpt2, 128 wide": ("gpt2", {"n_embd": 128, "n_layer": 3, "n_head": 4}, 3e-3, 16),
    "qwen2, 192 wide, half learned": (
        "qwen2",
        {"hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 4},
        2e-3,
        14,
    ),
}
SHARED = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
}
GPT2 = {"n_positions": 256, "initializer_range": 0.1}
GOAL = {"forget/probability": {"below": TARGET}}
AUTO = {"learning_rate": "auto"}
RECIPES: dict[str, dict[str, Any]] = {
    "1e-5 for five epochs, sago": {"combiner": "sago"},
    "auto for five epochs": {"training": AUTO},
    "1e-5 until": {"until": GOAL},
    "1e-4 until": {"training": {"learning_rate": 1e-4}, "until": GOAL},
    "1e-3 until": {"training": {"learning_rate": 1e-3}, "until": GOAL},
    "auto until": {"training": AUTO, "until": GOAL},
    "auto until, sago": {"training": AUTO, "until": GOAL, "combiner": "sago"},
    "auto until, no combiner": {"training": AUTO, "until": GOAL, "combiner": None},
    "auto until, LoRA": {"training": AUTO, "until": GOAL, "lora": {"r": 8}},
}
METRICS = [f"{of}/{what}" for of in SETS for what in ("probability", "extraction_strength")]


def model_of(out: Path, name: str) -> Path:
    """Train a model, unless it is there; return its folder."""
    architecture, config, rate, epochs = MODELS[name]
    folder = out / "models" / name.replace(", ", "-").replace(" ", "-")
    if not (folder / "results.json").is_file():
        shared = GPT2 if architecture == "gpt2" else SHARED
        recipe = {
            "model": {
                "architecture": architecture,
                "vocabulary": 2048,
                "config": {**shared, "tie_word_embeddings": True, **config},
            },
            "benchmark": "fictional",
            "sets": ["forget", "retain", "facts"],
            "training": {
                "epochs": epochs,
                "batch_size": 16,
                "learning_rate": rate,
                "betas": [0.9, 0.98],
                "warmup_steps": 10,
                "schedule": "stable_decay",
                "log_every": 10,
            },
        }
        amnesis.finetune(recipe, folder, overwrite=True, device="cpu")
    return folder / "model"


def files(out: Path) -> dict[str, str]:
    """Write the sets as a user has them, in CSV files; return their paths."""
    rows = amnesis.create("benchmark", "fictional").sets()
    paths = {}
    for name in SETS:
        path = out / f"{name}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["question", "answer"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows[name])
        paths[name] = str(path)
    return paths


def measured(out: Path, name: str, recipe: str) -> dict[str, Any]:
    """Unlearn a model by a recipe; return what is kept of the run."""
    model = model_of(out, name)
    document = {
        "model": str(model),
        "objective": "wga",
        "regularizer": "kl",
        "combiner": "pcgrad",
        "benchmark": {"name": "own", **files(out)},
        "evaluate": {"metrics": METRICS, "bootstrap": 0, "keep_answers": False},
        **RECIPES[recipe],
    }
    results = amnesis.run(document, out / "run", overwrite=True, device="cpu").results
    weights = sum(p.numel() for p in _weights(model))
    tested, goal = results.range_test, results.goal
    return {
        "model": name,
        "parameters": weights,
        "finetuning_rate": MODELS[name][2],
        "recipe": recipe,
        "rate": max(step["learning_rate"] for step in results.trajectory),
        "steps": results.steps,
        "seconds": results.seconds,
        "goal": None if goal is None else {"reached": goal.reached, "advice": goal.advice},
        "range_test": None if tested is None else {"steps": len(tested.curve) - 1,
                                                   "ended": tested.ended},
        "before": results.before,
        "after": results.after,
    }  # fmt: skip


def _weights(folder: Path) -> Iterator[torch.Tensor]:
    from safetensors.torch import load_file

    for file in folder.glob("*.safetensors"):
        yield from load_file(file).values()


def read(file: Path) -> list[dict[str, Any]]:
    """Return the records of the runs that are there."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def table(records: list[dict[str, Any]]) -> str:
    """Return what was measured as a Markdown table."""
    head = "| recipe | model | parameters | its rate | rate | steps | forget p | forgot | "
    head += "retain p | facts p | seconds |"
    lines = [head, "|" + "---|" * 11]
    order = {name: k for k, name in enumerate(RECIPES)}
    for r in sorted(records, key=lambda r: order.get(r["recipe"], 99)):
        before, after = r["before"], r["after"]
        forgot = after["forget/probability"] < TARGET

        def way(name: str, before: Any = before, after: Any = after) -> str:
            return f"{before[name]:.2f} → {after[name]:.3f}"

        lines.append(
            f"| {r['recipe']} | {r['model']} | {r['parameters'] / 1e6:.2f} M "
            f"| {r['finetuning_rate']:g} | {r['rate']:.2g} | {r['steps']} "
            f"| {way('forget/probability')} | {'yes' if forgot else '**no**'} "
            f"| {way('retain/probability')} | {way('facts/probability')} | {r['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what is not there yet, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--scratch", type=Path, default=Path("runs/defaults"))
    parser.add_argument("--table", action="store_true", help="print the table, measure nothing")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES), help="these alone")
    arguments = parser.parse_args()
    file = arguments.out / "defaults.jsonl"
    if not arguments.table:
        quiet_libraries()
        arguments.out.mkdir(parents=True, exist_ok=True)
        arguments.scratch.mkdir(parents=True, exist_ok=True)
        there = {(r["model"], r["recipe"]) for r in read(file)}
        for recipe in arguments.recipes:
            for name in MODELS:
                if (name, recipe) in there:
                    continue
                record = measured(arguments.scratch, name, recipe)
                if not math.isfinite(record["after"]["forget/probability"]):
                    raise RuntimeError(f"{name}, {recipe}: no finite value")
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(record, ensure_ascii=False) + "\n")
                print(table([record]).splitlines()[-1], flush=True)
    print(table(read(file)))


if __name__ == "__main__":
    main()
