"""What ``--check`` predicts of a step's memory, beside what two real steps take.

    python benchmarks/memory.py [--shape NAME …] [--resident] [--write]

Each shape is a model of random weights and a recipe that a kind of run is extreme in: activations,
parameters, vocabulary, an adapter, half precision, checkpointing. ``predicted`` is from the
configuration alone, ``measured`` counts every allocation of two steps of the run's own trainer.
With ``--resident`` the steps are made once more in a process of their own, and ``resident`` is by
how much its memory grew: what the C library has not given back is in it. Each shape has a process
of its own. ``--write`` adds the records to ``benchmarks/results/memory.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "memory.jsonl"
MIB = 1 << 20
# A name, the model's configuration, the dtype of its weights, tokens of an answer at most, and
# what the recipe says beside model and rows.
SHAPES: dict[str, dict[str, Any]] = {
    "activations": {
        "model": ("llama", {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8}),
        "vocabulary": 4000,
        "words": 120,
        "recipe": {"objective": "ga", "regularizer": "nll", "training": {"batch_size": 8}},
    },
    "parameters": {
        "model": ("qwen2", {"hidden_size": 896, "intermediate_size": 2432, "num_hidden_layers": 8}),
        "vocabulary": 8000,
        "words": 12,
        "recipe": {
            "objective": "npo",
            "regularizer": "nll",
            "combiner": "sago",
            "training": {"batch_size": 2},
        },
    },
    "vocabulary": {
        "model": ("gemma2", {"hidden_size": 256, "intermediate_size": 768, "head_dim": 64}),
        "layers": 4,
        "vocabulary": 96000,
        "words": 60,
        "recipe": {
            "objective": "wga",
            "regularizer": "kl",
            "combiner": "pcgrad",
            "training": {"batch_size": 4},
        },
    },
    "whole logits": {
        "model": ("llama", {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4}),
        "vocabulary": 32000,
        "words": 60,
        "recipe": {"objective": "me", "regularizer": "nll", "training": {"batch_size": 4}},
    },
    "adapter": {
        "model": ("qwen3", {"hidden_size": 512, "intermediate_size": 1536, "head_dim": 64}),
        "layers": 8,
        "vocabulary": 24000,
        "words": 100,
        "recipe": {
            "objective": "npo",
            "regularizer": "nll",
            "lora": {"r": 16},
            "training": {"batch_size": 4},
        },
    },
    "bfloat16": {
        "model": ("gpt2", {"n_embd": 512, "n_layer": 8, "n_head": 8, "n_positions": 1024}),
        "dtype": "bfloat16",
        "vocabulary": 16000,
        "words": 60,
        "recipe": {"objective": "ga", "regularizer": "nll", "training": {"batch_size": 4}},
    },
    "autocast": {
        "model": ("llama", {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6}),
        "vocabulary": 16000,
        "words": 80,
        "recipe": {
            "objective": "ga",
            "regularizer": "nll",
            "combiner": "sago",
            "training": {"batch_size": 4, "precision": "bfloat16"},
        },
    },
    "checkpointing": {
        "model": (
            "llama",
            {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 12},
        ),
        "vocabulary": 8000,
        "words": 150,
        "recipe": {
            "objective": "ga",
            "regularizer": "nll",
            "training": {"batch_size": 8, "gradient_checkpointing": True},
        },
    },
    "deep": {  # gone through with 6 and 12 of its layers
        "model": ("llama", {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 28}),
        "vocabulary": 8000,
        "words": 80,
        "recipe": {
            "objective": "ga",
            "regularizer": "nll",
            "training": {"batch_size": 8, "micro_batch_size": 4},
        },
    },
}
_KINDS = {"llama": 8, "qwen2": 8, "gemma2": 4, "qwen3": 8}  # attention heads


def recipe_of(shape: dict[str, Any], folder: Path) -> Any:
    """Write a shape's model of random weights into a folder, and return its recipe."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from amnesis import Recipe
    from amnesis.models.creation import train_tokenizer

    kind: str = shape["model"][0]
    own: dict[str, Any] = shape["model"][1]
    sizes: dict[str, Any] = {"eos_token_id": 0, "pad_token_id": 1, **own}
    sizes["vocab_size"] = shape["vocabulary"]
    if kind in _KINDS:
        sizes |= {"num_attention_heads": _KINDS[kind], "num_key_value_heads": _KINDS[kind] // 2}
    if "layers" in shape:
        sizes["num_hidden_layers"] = shape["layers"]
    torch.manual_seed(0)
    dtype = getattr(torch, shape.get("dtype", "float32"))
    config = AutoConfig.for_model(kind, **sizes)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    train_tokenizer(["salt and thyme"] * 3, 300).save_pretrained(folder)
    rows = _rows(shape["words"], 8)
    document: dict[str, Any] = {
        "model": str(folder),
        "benchmark": {"name": "own", "forget": rows, "retain": rows},
    }
    document |= shape["recipe"]
    document["training"] = {"steps": 2, **document["training"]}
    return Recipe.parse(document)


def _rows(words: int, count: int) -> list[dict[str, str]]:
    """Return rows whose answers have half as many words to as many."""
    draw = random.Random(0)
    return [
        {"question": f"What is {number}?", "answer": "salt " * draw.randint(words // 2, words)}
        for number in range(count)
    ]


def predicted(recipe: Any, prepared: Any) -> dict[str, Any]:
    """Return the prediction, in MiB, and how long it took."""
    from amnesis.runs.planning.plan import plan_memory

    start = time.perf_counter()
    plan = plan_memory(recipe, prepared)
    if plan is None or plan.forecast is None:
        return {"predicted_mib": None}
    return {
        "predicted_mib": round(plan.forecast.peak / MIB, 1),
        "highest_in": plan.forecast.part,
        "seconds_to_predict": round(time.perf_counter() - start, 1),
    }


def measured(recipe: Any, prepared: Any) -> dict[str, Any]:
    """Return what two steps took, in MiB."""
    from amnesis.runs.planning.measuring import measure_steps

    result = measure_steps(recipe, prepared)
    return {
        "measured_mib": round((result.peak or 0) / MIB, 1),
        "seconds_a_step": round(result.seconds, 2),
    }


def resident(recipe: Any, prepared: Any) -> dict[str, Any]:
    """Return by how much the process grew in two steps, in MiB."""
    from amnesis import Unlearner
    from amnesis.models.loading import load_model, load_tokenizer
    from amnesis.runs.run import trainable_model

    def kib(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    before = kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    model = trainable_model(recipe, load_model(recipe.model, device="cpu"))
    Unlearner(
        model,
        load_tokenizer(recipe.model),
        method=prepared.method,
        training=recipe.training,
        device="cpu",
    ).fit(prepared.examples["forget"], prepared.examples["retain"])
    return {"resident_mib": round((kib("VmHWM") - before) / 1024, 1)}


PARTS = {"predicted": predicted, "measured": measured, "resident": resident}


def one(name: str, part: str) -> None:
    """Print one number of one shape as JSON."""
    import torch

    from amnesis.cli.terminal import quiet_libraries
    from amnesis.runs.preflight import prepare

    torch.set_num_threads(1)
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_of(SHAPES[name], Path(folder))
        print(json.dumps(PARTS[part](recipe, prepare(recipe, device="cpu"))))


def table(records: list[dict[str, Any]]) -> str:
    """Lay the records out, a line each."""
    lines = [f"{'':16}{'predicted':>12}{'measured':>12}{'ratio':>8}{'resident':>12}   MiB"]
    for r in records:
        at = r.get("resident_mib")
        lines.append(
            f"{r['shape']:16}{r['predicted_mib'] or 0:12.1f}{r['measured_mib']:12.1f}"
            f"{r['ratio']:8.3f}{'' if at is None else f'{at:.1f}':>12}   {r.get('highest_in')}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the shapes, and print them side by side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", nargs="*", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--resident", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("SHAPE", "PART"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(*args.one)
        return
    records = []
    for name in args.shape:
        record: dict[str, Any] = {"shape": name}
        for part in PARTS if args.resident else ("predicted", "measured"):
            # What is freed is given back, so that it is not counted twice.
            env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 18)}
            command = [sys.executable, __file__, "--one", name, part]
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name}, {part}: {done.stderr[-2000:]}")
            record |= json.loads(done.stdout.splitlines()[-1])
        record["ratio"] = round((record["predicted_mib"] or 0) / record["measured_mib"], 3)
        records.append(record)
        print(table([record]), flush=True)
    print(table(records))
    if args.write:
        with RESULTS.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    main()
