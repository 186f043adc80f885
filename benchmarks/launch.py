"""What the recipes of ``examples/launch`` take of each GPU, forecast without one.

    python benchmarks/launch.py            # prints the table of examples/launch/README.md
    python benchmarks/launch.py --write    # and puts it there

A step of a Llama of 1, 8 or 70 billion parameters is gone through on tensors without values, with
micro-batches of 4 rows of 256 tokens; the forecast is that of ``amnesis run --check``. No such run
was made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # docs.generate

GIB = 1 << 30
LAUNCH = ROOT / "examples" / "launch"
LLAMAS: dict[str, dict[str, Any]] = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "tie_word_embeddings": True},
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
           "num_attention_heads": 32},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
            "num_attention_heads": 64},
}  # fmt: skip
# A recipe, what is set beside it, a model, and over how many GPUs it is sharded.
LINES: list[tuple[str, list[str], str, int]] = [
    ("full.yaml", [], "1B", 1),
    ("full.yaml", [], "8B", 8),
    ("full.yaml", [], "70B", 32),
    ("lora.yaml", [], "1B", 1),
    ("lora.yaml", [], "8B", 1),
    ("lora.yaml", [], "70B", 8),
]


def scene_of(recipe_name: str, overrides: list[str], size: str, gpus: int, folder: Path) -> Any:
    """Return a recipe's step with a model of that size, on as many GPUs."""
    from measuring import new_llama
    from transformers import LlamaConfig

    from amnesis import Recipe
    from amnesis.models.creation import train_tokenizer
    from amnesis.runs.planning.plan import rows_of
    from amnesis.runs.planning.rehearsal import Scene
    from amnesis.runs.preflight import prepare

    new_llama(8, 1, 300, "cpu", heads=2).save_pretrained(folder)  # for its tokens alone
    train_tokenizer(["salt and thyme"] * 3, 300).save_pretrained(folder)
    recipe = Recipe.load(LAUNCH / recipe_name, [f"model.path={folder}", "template={}", *overrides])
    row = {"question": "?", "answer": "salt " * 245}
    rows = [{**row, "question": f"{n}?"} for n in range(32)]
    recipe = recipe.model_copy(
        update={"benchmark": {"name": "own", "forget": rows, "retain": rows}}
    )
    prepared = prepare(recipe, device="cpu")
    config = LlamaConfig(vocab_size=128256, num_key_value_heads=8, **LLAMAS[size])
    return Scene(
        recipe=recipe,
        method=prepared.method,
        config=config,
        rows=rows_of(recipe, prepared.method, prepared.examples, 0, gpus),
        device="cpu",
        ranks=gpus,
        sharded=gpus > 1,
    )


def table_of_forecasts() -> str:
    """Return the table, as Markdown."""
    from docs.generate.markdown import table

    from amnesis.runs.planning.plan import forecast_of

    rows = []
    for recipe, overrides, size, gpus in LINES:
        with tempfile.TemporaryDirectory() as folder:
            forecast = forecast_of(scene_of(recipe, overrides, size, gpus, Path(folder)))
        if forecast is None:
            sys.exit(f"{recipe}, {size}: cannot be gone through without values")
        shown = [f"{part / GIB:.1f}" for part in (forecast.weights, forecast.peak)]
        how = f"{gpus}, sharded" if gpus > 1 else "1"
        rows.append([f"`{recipe}`", size, how, *shown])
        print(recipe, size, gpus, *shown, flush=True)
    return table(["recipe", "Llama", "GPUs", "weights", "at the highest"], rows)


def main() -> None:
    """Print the table, or write it."""
    from docs.generate.markdown import filled

    from amnesis.cli import quiet_libraries

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    quiet_libraries()
    made = table_of_forecasts()
    print(made)
    if given.write:
        readme = LAUNCH / "README.md"
        text = filled(readme.read_text(encoding="utf-8"), "memory", f"\n{made}\n")
        readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
