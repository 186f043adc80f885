"""Every objective on the demo's model, each as far as one goal: what is left of the rest?

    python examples/all_methods.py [--out runs/all_methods] [--combiner sago] [--objectives ga,npo]

Trains the demo's small model to know the `fictional` benchmark (about a minute on two cores, once),
then unlearns it once for each objective, until the forget probability is below 0.1. A run that is
there is not repeated, so the script goes on where it was cut off; `amnesis compare` reads the runs
too. `all_methods.png` shows the extraction strength of the retain set and of the facts, which no
run trains on, the best first; `all_methods.json` has every number.

All have the demo's optimizer settings, and none was tuned: on a model this small, it is an example
of how to compare, not a ranking. `benchmarks/methods.py` does the same for three seeds and several
regularizers and combiners.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amnesis
from amnesis.discovery.registry import default_registry
from amnesis_evaluation.commands.demo import LEARNING, MODEL, UNLEARNING
from amnesis_plugins.g_effect.pictures import NO_MATPLOTLIB

# Hyper-parameters that have no default, for a model of three blocks.
SETTINGS: dict[str, dict[str, Any]] = {
    "rmu": {"layer": 1, "coefficient": 20.0},
    "adaptive_rmu": {"layer": 1},
}
# What cannot run on rows of questions and answers alone.
NEEDS_MORE = {"altpo": "rows with other answers"}
GOAL, STEPS = 0.1, 160
KEPT = ("retain/extraction_strength", "facts/extraction_strength")


def objectives() -> Iterator[str]:
    """Yield the objectives of amnesis itself that these rows suffice for."""
    for entry in default_registry():
        ours = entry.plugin.distribution == "amnesis" and not entry.alias_of
        if entry.kind == "objective" and ours and entry.name not in NEEDS_MORE:
            yield entry.name


def target(folder: Path, seed: int) -> Path:
    """Train the demo's model, or take the one that an earlier call left; return its folder."""
    if not (folder / "results.json").is_file():
        recipe = {
            "model": MODEL,
            "benchmark": {"name": "fictional", "seed": seed},
            "sets": ["forget", "retain", "facts"],
            "tokenizer_sets": ["forget", "retain", "facts"],
            "training": LEARNING,
            "seed": seed,
        }
        amnesis.finetune(recipe, folder, overwrite=True, device="cpu")
    return folder / "model"


def recipe_of(objective: str, model: Path, combiner: str, steps: int, seed: int) -> dict[str, Any]:
    """Return the recipe of one run; but for the objective all are the same."""
    return {
        "model": str(model),
        "benchmark": {"name": "fictional", "seed": seed},
        "objective": {"name": objective, **SETTINGS.get(objective, {})},
        "regularizer": "nll",
        "combiner": combiner,
        "training": {**UNLEARNING, "steps": steps},
        "until": {"forget/probability": {"below": GOAL}},
        "evaluate": {"metrics": ["probability", "extraction_strength"], "bootstrap": 0},
        "seed": seed,
    }


def unlearned(folder: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the values after a run, which is made unless it is there, or why there are none."""
    try:
        if not (folder / "results.json").is_file():
            amnesis.run(recipe, folder, overwrite=True, device="cpu")
    except amnesis.AmnesisError as error:  # such as a loss that is no number any more
        return {"error": str(error)}
    results = amnesis.Results.read(folder)
    return {"steps": results.steps, **(results.after or {})}


def plot(path: Path, found: dict[str, dict[str, Any]]) -> str:
    """Draw two bars a method, the best first; return what to say of the picture."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return NO_MATPLOTLIB
    order = sorted(found, key=lambda name: sum(found[name][key] for key in KEPT))
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(order)), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for shift, key in zip((0.2, -0.2), KEPT, strict=True):
        places = [place + shift for place in range(len(order))]
        panel.barh(places, [found[name][key] for name in order], height=0.38, label=key)
    panel.set_yticks(range(len(order)), [_label(name, found[name]) for name in order])
    panel.set_xlim(0, 1)
    panel.set_xlabel(f"what is left where the forget probability is below {GOAL}")
    panel.legend(loc="lower left")
    figure.savefig(path, dpi=150)
    return f"plot: {path}"


def _label(name: str, values: dict[str, Any]) -> str:
    reached = values["forget/probability"] < GOAL
    return f"{name}, {values['steps']} steps" + ("" if reached else ": not reached")


def main() -> None:
    """Train, unlearn once for each objective, plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/all_methods"))
    parser.add_argument("--combiner", default="sago")
    parser.add_argument("--objectives", default="", help="separated by commas; default: every one")
    parser.add_argument("--model", type=Path, help="a folder in the demo's model's place")
    parser.add_argument("--steps", type=int, default=STEPS, help="the most that a run may make")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = given.model or target(given.out / "target", given.seed)
    found: dict[str, dict[str, Any]] = {}
    for name in given.objectives.split(",") if given.objectives else objectives():
        recipe = recipe_of(name, model, given.combiner, given.steps, given.seed)
        values = unlearned(given.out / f"{name}-{given.combiner}", recipe)
        told = [
            f"{key} {values[key]:.3f}" for key in ("forget/probability", *KEPT) if key in values
        ]
        print(f"{name}: {values.get('error') or ', '.join(told)}", flush=True)
        found[name] = values
    (given.out / "all_methods.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    drawn = {name: values for name, values in found.items() if "error" not in values}
    print(plot(given.out / "all_methods.png", drawn))


if __name__ == "__main__":
    main()
