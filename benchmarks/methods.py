"""Every objective × {nll, kl} × {sum, pcgrad, sago} on the demo's model, at equal forgetting.

Objectives of later papers run with ``nll`` alone.

    python benchmarks/methods.py --out benchmarks/results          # saved as it goes, resumable
    python benchmarks/methods.py --out benchmarks/results --table  # the table of what is there

Each run stops at the first evaluation whose forget probability is below the target; what is shown
is interpolated between that evaluation and the one before it, so methods are compared at the same
forgetting, with the steps that each took. All use the demo's optimizer settings; none was tuned.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import TrainerCallback

import amnesis
from amnesis.cli import load_subject, quiet_libraries
from amnesis.contracts import EvaluationSettings, Subject
from amnesis_evaluation.commands.demo import LEARNING, MODEL

TARGET, EVERY, STEPS, SEEDS = 0.1, 4, 160, 3
OBJECTIVES: dict[str, Any] = {
    **{name: name for name in ("ga", "npo", "simnpo", "wga", "tnpo", "wtnpo", "satimp")},
    **{name: name for name in ("po", "dpo", "undial", "ceu")},
    "rmu": {"name": "rmu", "layer": 1, "coefficient": 20.0},
}
# Of later papers: with nll alone, to keep the table's size.
LATER: dict[str, Any] = {
    **{name: name for name in ("me", "ihl", "flat", "jensun", "unilogit", "pdu")},
    "adaptive_rmu": {"name": "adaptive_rmu", "layer": 1},
}
KEPT = [
    f"{of}/{metric}"
    for of in ("retain", "facts")
    for metric in ("probability", "extraction_strength")
]
COMBINERS = ("sum", "pcgrad", "sago")
TRAINING = {
    "steps": STEPS,
    "batch_size": 8,
    "learning_rate": 5e-4,
    "warmup_steps": 5,
    "schedule": "constant",
    "log_every": STEPS,
}


class UntilForgotten(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Evaluates the forget set every few steps, and ends the run once the target is passed.

    What of the rest is ``kept`` is evaluated on either side of the target.
    """

    kept: tuple[str, ...] = tuple(KEPT)

    def __init__(self, subject: Subject, benchmark: Any, before: Mapping[str, float]) -> None:
        self.subject, self.benchmark = subject, benchmark
        self.points = [(0, before["forget/probability"], dict(before))]
        self._weights = self._copied()
        self.reached = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate, and stop where the target is passed."""
        if state.global_step % EVERY:
            return
        forgotten = evaluate(self.subject, self.benchmark, ["forget/probability"])[
            "forget/probability"
        ]
        if forgotten < TARGET:
            after = evaluate(self.subject, self.benchmark, list(self.kept))
            now = self._copied()
            self.subject.model.load_state_dict(self._weights)
            step, probability, _ = self.points[-1]
            before = evaluate(self.subject, self.benchmark, list(self.kept))
            self.subject.model.load_state_dict(now)
            self.points = [(step, probability, before), (state.global_step, forgotten, after)]
            self.reached = control.should_training_stop = True
        else:
            self.points.append((state.global_step, forgotten, {}))
            self._weights = self._copied()

    def _copied(self) -> dict[str, torch.Tensor]:
        return copy.deepcopy(self.subject.model.state_dict())

    def at_target(self) -> dict[str, float] | None:
        """Interpolate linearly between the evaluations on either side of the target."""
        if not self.reached:
            return None
        (one_step, one, before), (two_step, two, after) = self.points[-2:]
        share = (one - TARGET) / (one - two)
        values = {key: before[key] + share * (after[key] - before[key]) for key in self.kept}
        return {**values, "steps": one_step + share * (two_step - one_step)}


def evaluate(subject: Subject, benchmark: Any, metrics: list[str]) -> dict[str, float]:
    """Evaluate by a few metrics, without intervals."""
    settings = EvaluationSettings(metrics=tuple(metrics), bootstrap=0, batch_size=64)
    return dict(benchmark.evaluate(subject, settings).values)


def combinations() -> Iterator[tuple[str, str, str, int]]:
    """Return every (objective, regularizer, combiner, seed), seed by seed."""
    for seed in range(SEEDS):
        for objective in OBJECTIVES:
            for regularizer in ("nll", "kl"):
                for combiner in COMBINERS:
                    yield objective, regularizer, combiner, seed
    for seed, objective, combiner in itertools.product(range(SEEDS), LATER, COMBINERS):
        yield objective, "nll", combiner, seed


def target_model(out: Path, seed: int) -> Path:
    """Train the demo's model with this seed, unless it is there; return its folder."""
    folder = out / f"target-{seed}"
    if not (folder / "results.json").is_file():
        recipe = {
            "model": MODEL,
            "benchmark": {"name": "fictional", "seed": seed},
            "sets": ["forget", "retain", "facts"],
            "training": LEARNING,
            "seed": seed,
        }
        amnesis.finetune(recipe, folder, overwrite=True, device="cpu")
    return folder


def run_one(
    out: Path, objective: str, regularizer: str, combiner: str, seed: int
) -> dict[str, Any]:
    """Unlearn by one combination until the target is passed."""
    subject = load_subject(str(target_model(out, seed)), device="cpu").subject
    unlearner = amnesis.Unlearner(
        subject.model,
        subject.tokenizer,
        {**OBJECTIVES, **LATER}[objective],
        regularizer,
        combiner,
        training=TRAINING,
        template=subject.template,
        seed=seed,
        reference_cache=out / "reference",
        device="cpu",
    )
    benchmark = amnesis.create("benchmark", "fictional", seed=seed)
    before = evaluate(subject, benchmark, [*KEPT, "forget/probability"])
    until = UntilForgotten(subject, benchmark, before)
    unlearner.callbacks = (until,)
    sets = benchmark.sets()
    found: dict[str, Any] = {"at": None, "note": ""}
    try:
        unlearner.fit(sets["forget"], sets["retain"])
        found["at"] = until.at_target()
    except amnesis.AmnesisError as error:
        found["note"] = str(error)
    found["lowest"] = min(probability for _, probability, _ in until.points)
    return found


def table(records: list[dict[str, Any]]) -> str:
    """Lay the records out as Markdown, seeds as mean ± standard error."""
    heads = ["objective", "regularizer", "combiner", *(k.replace("_", " ") for k in KEPT), "steps"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    grouped: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in records:
        key = (record["objective"], record["regularizer"], record["combiner"])
        grouped.setdefault(key, []).append(record)
    for key, group in grouped.items():
        reached = [record["at"] for record in group if record["at"] is not None]
        if len(reached) < len(group):
            lowest = statistics.mean(record["lowest"] for record in group)
            said = (
                f"reaches {TARGET} in {len(reached)} of {len(group)} seeds within {STEPS} steps "
                f"(lowest {lowest:.2f})"
            )
            lines.append("| " + " | ".join([*key, said, "", "", "", ""]) + " |")
            continue
        cells = [spread([at[name] for at in reached], 3) for name in KEPT]
        lines.append(
            "| " + " | ".join([*key, *cells, spread([a["steps"] for a in reached], 0)]) + " |"
        )
    return "\n".join(lines)


def spread(values: list[float], digits: int) -> str:
    """Return mean ± standard error."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return f"{mean:.{digits}f}"
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def main() -> None:
    """Run what is not there yet, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="only show what is there")
    arguments = parser.parse_args()
    quiet_libraries()
    saved = arguments.out / "methods.jsonl"
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = saved.read_text(encoding="utf-8").splitlines() if saved.is_file() else []
    records = [json.loads(line) for line in lines]
    done = {(r["objective"], r["regularizer"], r["combiner"], r["seed"]) for r in records}
    todo = [] if arguments.table else [c for c in combinations() if c not in done]
    for index, chosen in enumerate(todo):
        names = dict(zip(("objective", "regularizer", "combiner", "seed"), chosen, strict=True))
        records.append({**names, **run_one(arguments.out, *chosen)})
        with saved.open("a", encoding="utf-8") as file:
            file.write(json.dumps(records[-1]) + "\n")
        print(f"{index + 1}/{len(todo)} {chosen}: {records[-1]['at']}", flush=True)
    print(table(records))


if __name__ == "__main__":
    main()
