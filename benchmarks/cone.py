"""CONE beside other rules at equal forgetting: what each costs rows that are kept, and rows unseen.

    python benchmarks/cone.py --out benchmarks/results                    # saved as it goes
    python benchmarks/cone.py --out /tmp/c --only people npo cone 5e-4 0  # one cell, in a minute
    python benchmarks/cone.py --out benchmarks/results --table            # the tables

Two worlds: the demo's invented people, and TOFU's text (``--tofu FOLDER``: forget01, 80 rows that
are kept and 80 of other authors that no stream sees). A model is trained on all rows of a world,
one for each seed; each rule then unlearns it with a likelihood term, at each rate of one grid, and
stops at the first evaluation below a forget probability of .1. Costs are the rises of the mean
negative log-likelihood (10⁻³ nats a token) on rows of the retain stream and on rows of no stream,
interpolated at .1. A rule is compared at the rate where those two costs are least on the mean over
seeds, each rule's own; differences from SAGO are paired by seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import methods
from methods import TARGET, UntilForgotten, spread
from scipy import stats

import amnesis
from amnesis.cli import load_subject, quiet_libraries
from amnesis.contracts import EvaluationSettings, Subject
from amnesis_evaluation.commands.demo import LEARNING, MODEL

STEPS = 160
RATES = (2.5e-4, 5e-4, 1e-3)
OBJECTIVES = ("ga", "npo", "simnpo", "wga")
RULES: dict[str, Any] = {
    "sum": "sum",
    "pcgrad": "pcgrad",
    "sago": "sago",
    "sago, γ = ½": {"name": "sago", "gamma": 0.5},
    "sago, γ = 2": {"name": "sago", "gamma": 2.0},
    "keep_retain": {"name": "sago", "keep_retain": True},
    "gru": "gru",
    "ngdiff": "ngdiff",
    "cone": "cone",
}
# What in CONE does it, and what was tried for its failure.
VARIANTS: dict[str, Any] = {
    "cone, c = ½": {"name": "cone", "c": 0.5},
    "cone, λ = 1": {"name": "cone", "damping": 1.0},
    "cone, β = .9": {"name": "cone", "beta": 0.9},
    "cone, no momentum": "cone",
    "cone, tensor": {"name": "cone", "scope": "tensor"},
}
KEPT = {"retain": "retain/perplexity", "facts": "facts/perplexity"}


def benchmark_of(world: str, tofu: Path, seed: int) -> Any:
    """Return a world's benchmark: its forget, retain and facts rows (of no stream)."""
    if world == "people":
        return amnesis.create("benchmark", "fictional", seed=seed)

    def rows(name: str) -> list[dict[str, str]]:
        text = (tofu / f"{name}.json").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    others = rows("retain90")
    start = 160 * seed  # other authors with each seed
    kept, unseen = others[start : start + 80], others[start + 80 : start + 160]
    return amnesis.create("benchmark", "own", forget=rows("forget01"), retain=kept, facts=unseen)


def target_model(out: Path, world: str, tofu: Path, seed: int) -> Path:
    """Train a model on all rows of a world, unless it is there; return its folder."""
    if world == "people":
        return methods.target_model(out, seed)
    folder = out / f"tofu-{seed}"
    if not (folder / "results.json").is_file():
        sets = benchmark_of(world, tofu, seed).sets()
        rows = [row for name in ("forget", "retain", "facts") for row in sets[name]]
        recipe = {
            "model": MODEL,
            "benchmark": {"name": "own", "forget": rows, "retain": rows},
            "sets": ["forget"],
            "training": {**LEARNING, "epochs": 60},
            "seed": seed,
        }
        amnesis.finetune(recipe, folder, overwrite=True, device="cpu")
    return folder


class UntilGone(UntilForgotten):
    """Stops at the target, and measures perplexities on either side of it."""

    kept = tuple(KEPT.values())


def measured(subject: Subject, benchmark: Any, metrics: list[str]) -> dict[str, float]:
    """Evaluate by a few metrics, without intervals."""
    settings = EvaluationSettings(metrics=tuple(metrics), bootstrap=0, batch_size=64)
    return dict(benchmark.evaluate(subject, settings).values)


def run_one(
    out: Path, tofu: Path, world: str, objective: str, rule: str, rate: float, seed: int
) -> dict[str, Any]:
    """Unlearn by one rule until the target is passed; return costs there, or why there are none."""
    subject = load_subject(str(target_model(out, world, tofu, seed)), device="cpu").subject
    benchmark = benchmark_of(world, tofu, seed)
    before = measured(subject, benchmark, [*KEPT.values(), "forget/probability"])
    until = UntilGone(subject, benchmark, before)
    training = {**methods.TRAINING, "steps": STEPS, "learning_rate": rate}
    if rule == "cone, no momentum":
        training["momentum"] = 0.0
    found: dict[str, Any] = {"steps": None, "note": ""}
    sets = benchmark.sets()
    try:
        amnesis.Unlearner(
            subject.model,
            subject.tokenizer,
            objective,
            "nll",
            {**RULES, **VARIANTS}[rule],
            training=training,
            template=subject.template,
            seed=seed,
            reference_cache=out / "reference",
            callbacks=(until,),
            device="cpu",
        ).fit(sets["forget"], sets["retain"])
    except amnesis.AmnesisError as error:
        found["note"] = str(error)
    at = until.at_target()
    if at is not None:
        found["steps"] = at["steps"]
        found |= {
            name: 1e3 * (math.log(at[key]) - math.log(before[key])) for name, key in KEPT.items()
        }
    found["lowest"] = min(probability for _, probability, _ in until.points)
    return found


Record = dict[str, Any]
NAMES = ("world", "objective", "rule", "rate", "seed")


def cells(given: argparse.Namespace) -> Iterator[tuple[Any, ...]]:
    """Return every cell, seed by seed."""
    for seed in given.seeds:
        yield from itertools.product(
            given.worlds, given.objectives, given.rules, given.rates, (seed,)
        )


def best_rates(records: list[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Return each rule's seeds at the rate where it costs least, of those where all arrive."""
    by_rate: dict[tuple[str, str, str], dict[float, list[Record]]] = {}
    for r in records:
        rates = by_rate.setdefault((r["world"], r["objective"], r["rule"]), {})
        rates.setdefault(r["rate"], []).append(r)

    def cost(group: list[Record]) -> tuple[int, float]:
        arrived = [r for r in group if r["steps"] is not None]
        total = sum(r["retain"] + r["facts"] for r in arrived) / max(len(arrived), 1)
        return len(group) - len(arrived), total

    return {key: min(rates.values(), key=cost) for key, rates in by_rate.items()}


def table(records: list[Record]) -> str:
    """Lay out each rule at its best rate, and its paired difference from SAGO, as Markdown."""
    heads = ["world", "objective", "rule", "rate", "steps", "retain", "no stream", "− SAGO's", "p"]
    best = best_rates(records)
    rows = []
    for (world, objective, rule), group in sorted(best.items()):
        arrived = {r["seed"]: r for r in group if r["steps"] is not None}
        if len(arrived) < len(group):
            lowest = min(r["lowest"] for r in group)
            said = f"{len(arrived)} of {len(group)} seeds reach {TARGET} (lowest {lowest:.2f})"
            rows.append([world, objective, rule, f"{group[0]['rate']:g}", said, "", "", "", ""])
            continue
        columns = [spread([r[k] for r in arrived.values()], 1) for k in ("steps", *KEPT)]
        sago = {r["seed"]: r for r in best.get((world, objective, "sago"), []) if r["steps"]}
        shared = sorted(arrived.keys() & sago.keys())
        gains = [arrived[s]["facts"] - sago[s]["facts"] for s in shared]
        difference, p = "", ""
        if rule != "sago" and len(gains) > 1:
            test = stats.ttest_1samp(gains, 0.0)
            low, high = test.confidence_interval(0.95)
            difference = f"{statistics.mean(gains):.1f} ({low:.1f} to {high:.1f})"
            p = f"{test.pvalue:.3f}"
        rows.append([world, objective, rule, f"{group[0]['rate']:g}", *columns, difference, p])
    mark_by_holm(rows)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def mark_by_holm(rows: list[list[str]], level: float = 0.05) -> None:
    """Mark the p-values that hold after Holm's correction over the whole table with a star."""
    tested = sorted((row for row in rows if row[-1]), key=lambda row: float(row[-1]))
    for index, row in enumerate(tested):
        if float(row[-1]) > level / (len(tested) - index):
            return
        row[-1] += " *"


def read(saved: Path) -> list[Record]:
    """Return the cells that were saved."""
    lines = saved.read_text(encoding="utf-8").splitlines() if saved.is_file() else []
    return [json.loads(line) for line in lines]


def main() -> None:
    """Run what is not there yet, and show the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tofu", type=Path, default=Path("../shared/data/tofu"))
    parser.add_argument("--worlds", nargs="*", default=["people", "tofu"])
    parser.add_argument("--objectives", nargs="*", default=list(OBJECTIVES))
    parser.add_argument("--rules", nargs="*", default=[*RULES, *VARIANTS])
    parser.add_argument("--rates", nargs="*", type=float, default=list(RATES))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(range(5)))
    parser.add_argument("--only", nargs=5, metavar=("WORLD", "OBJECTIVE", "RULE", "RATE", "SEED"))
    parser.add_argument("--table", action="store_true", help="only show what is there")
    given = parser.parse_args()
    quiet_libraries()
    given.out.mkdir(parents=True, exist_ok=True)
    saved = given.out / "cone.jsonl"
    records = read(saved)
    done: Mapping[Any, Any] = {tuple(r[name] for name in NAMES): r for r in records}
    wanted = list(cells(given))
    if given.only:
        world, objective, rule, rate, seed = given.only
        wanted = [(world, objective, rule, float(rate), int(seed))]
    for cell in [] if given.table else wanted:
        if cell in done:
            continue
        world, objective, rule, rate, seed = cell
        found = run_one(given.out, given.tofu, world, objective, rule, rate, seed)
        records.append({**dict(zip(NAMES, cell, strict=True)), **found})
        with saved.open("a", encoding="utf-8") as file:
            file.write(json.dumps(records[-1]) + "\n")
        print(" ".join(map(str, cell)), {k: v for k, v in found.items() if v != ""}, flush=True)
    print(table(records))


if __name__ == "__main__":
    main()
