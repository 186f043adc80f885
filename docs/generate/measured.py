"""The tables of what was measured, as the pages show the runs in ``benchmarks/results``."""

from __future__ import annotations

import itertools
import json
import runpy
import statistics
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from docs.generate.markdown import code, filled, table

Run = dict[str, Any]

DOCS = Path(__file__).resolve().parents[1]
RESULTS = DOCS.parent / "benchmarks" / "results"
TARGET = 0.1  # the forget probability at which runs are compared
_COMBINERS = ("sum", "pcgrad", "sago")
_KEPT = ("retain", "facts")
_ATTACKERS = ("forget", "unrelated")
_WORLDS = {"people": "people", "tofu": "TOFU"}
# The rows of a table, by the name that the runs have.
_VARIANTS = {
    "sum": "`sum`",
    "pcgrad": "`pcgrad`",
    "sago": "`sago`",
    "sago, sam": "`sago`, `sam` (ρ 0.01)",
    "sago, random": "`sago`, `random` (σ 0.001)",
    "sago, latent": "`sago`, `latent`",
    "sago, relearned": "`sago`, `relearned` (rate 0.01)",
    "retrained": "retrained",
}
_DEFAULTS = {
    "1e-5 for five epochs, sago": "10⁻⁵, five epochs, `sago` (the keys' own defaults)",
    "auto for five epochs": "`auto`, five epochs, `pcgrad`",
    "1e-5 until": "10⁻⁵, `until`, `pcgrad`",
    "1e-4 until": "10⁻⁴, `until`, `pcgrad`",
    "1e-3 until": "10⁻³, `until`, `pcgrad`",
    "auto until": "**`auto`, `until`, `pcgrad`**",
    "auto until, no combiner": "`auto`, `until`, none",
    "auto until, sago": "`auto`, `until`, `sago`",
    "auto until, LoRA": "`auto`, `until`, `pcgrad`, LoRA of rank 8",
}


def pages() -> dict[Path, str]:
    """Return the pages that hold such tables, with the tables of the runs that are there now."""
    tables = {
        "cone": (cone_table, "cone"),
        "ablations": (ablations_table, "cone"),
        "robustness": (robustness_table, "robust"),
        "kept": (kept_table, "results"),
        "defaults": (defaults_table, "results"),
    }
    texts: dict[Path, str] = {}
    for name, (made, page) in tables.items():
        path = DOCS / "explanation" / f"{page}.md"
        text = texts.get(path) or path.read_text(encoding="utf-8")
        texts[path] = filled(text, name, f"\n{made()}\n")
    return texts


def runs(name: str) -> list[Run]:
    """Return the runs that a benchmark has stored."""
    lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def spread(values: Iterable[float], digits: int) -> str:
    """Return mean ± standard error, as the benchmarks print it."""
    return str(_printed()(list(values), digits))


@cache
def _printed() -> Any:
    return runpy.run_path(str(RESULTS.parent / "methods.py"))["spread"]


def _grouped(stored: Sequence[Run], *keys: str) -> dict[tuple[Any, ...], list[Run]]:
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in stored:
        groups.setdefault(tuple(run[key] for key in keys), []).append(run)
    return groups


def kept_table() -> str:
    """Return what methods keep at equal forgetting; last are those that do not forget."""
    groups = _grouped(runs("methods"), "objective", "regularizer", "combiner")
    objectives = dict.fromkeys(objective for objective, regularizer, _ in groups)
    rows = [[groups[one, "nll", rule] for rule in _COMBINERS] for one in objectives]
    named = zip(objectives, rows, strict=True)
    ordered = sorted(named, key=lambda row: any(run["at"] is None for g in row[1] for run in g))
    heads = ["objective (+ `nll`)", *(f"{rule}: retain / facts / steps" for rule in _COMBINERS)]
    return table(heads, ([code(name), *map(_kept, row)] for name, row in ordered))


def _kept(group: Sequence[Run]) -> str:
    reached = [run["at"] for run in group if run["at"] is not None]
    if len(reached) < len(group):
        return f"stays at {statistics.mean(run['lowest'] for run in group):.2f}"
    kept = [spread((at[f"{of}/extraction_strength"] for at in reached), 2) for of in _KEPT]
    return " / ".join([*kept, f"{statistics.mean(at['steps'] for at in reached):.0f}"])


def cone_table() -> str:
    """Return SAGO's and CONE's costs at equal forgetting, cell by cell, where both were run."""
    groups = _grouped(runs("cone"), "world", "objective", "rate", "rule")
    rates = sorted({rate for _, _, rate, _ in groups})
    objectives = dict.fromkeys(objective for _, objective, _, _ in groups)
    cells = itertools.product(_WORLDS.items(), objectives, rates)
    rows = (
        [shown, code(objective), f"{rate:g}", str(len(pair[0])), *map(_cost, pair)]
        for (world, shown), objective, rate in cells
        for pair in [[groups.get((world, objective, rate, rule), []) for rule in ("sago", "cone")]]
        if all(pair)
    )
    return table(["world", "objective", "rate", "seeds", "SAGO", "CONE"], rows)


def ablations_table() -> str:
    """Return what parts of CONE do: NPO with invented people, at one rate."""
    groups = _grouped(runs("cone"), "world", "objective", "rate", "rule")
    found = {
        rule: group
        for (world, objective, rate, rule), group in groups.items()
        if (world, objective, rate) == ("people", "npo", 5e-4) and rule.startswith("cone")
    }
    rows = ([rule.replace("cone, ", ""), str(len(g)), _cost(g)] for rule, g in found.items())
    return table(["CONE with", "seeds", "steps / retain / no stream"], rows)


def _cost(group: Sequence[Run]) -> str:
    """Return steps, and the rises on retain rows and on rows of no stream."""
    if any(run["steps"] is None for run in group):
        return f"stays at {min(run['lowest'] for run in group):.2f}"
    return " / ".join(spread((run[key] for run in group), 1) for key in ("steps", *_KEPT))


def robustness_table() -> str:
    """Return what is kept at equal forgetting, and what relearning brings back."""
    groups = _grouped(runs("robustness"), "variant")

    def rows() -> Iterator[list[str]]:
        for variant, shown in _VARIANTS.items():
            group = groups[(variant,)]
            at = [run["at"] for run in group]
            kept = [spread((one[f"{of}/extraction_strength"] for one in at), 3) for of in _KEPT]
            steps = "" if variant == "retrained" else spread((one["steps"] for one in at), 0)
            after = [spread((run["attacked"][of] for run in group), 3) for of in _ATTACKERS]
            yield [shown, *kept, steps, *after]

    heads = ["combiner, perturbation", "retain", "facts", "steps"]
    return table([*heads, *(f"after {of} rows" for of in _ATTACKERS)], rows())


def defaults_table() -> str:
    """Return which ways to a rate and to an end forget, and what those that do cost at worst."""
    groups = _grouped(runs("defaults"), "recipe")

    def rows() -> Iterator[list[str]]:
        for recipe, shown in _DEFAULTS.items():
            group = groups[(recipe,)]
            arrived = [run for run in group if run["after"]["forget/probability"] < TARGET]
            said = f"{len(arrived)} of {len(group)}"
            if not arrived:
                yield [shown, said, "", "", ""]
                continue
            steps = sorted({run["steps"] for run in arrived})
            ends = "–".join(str(one) for one in dict.fromkeys((steps[0], steps[-1])))
            falls = [f"{max(_fall(run, of) for run in arrived):.3f}" for of in _KEPT]
            bold = "**" if shown.startswith("**") else ""
            yield [shown, f"{bold}{said}{bold}", ends, *falls]

    heads = ["learning rate, end, combiner", "reached the goal", "in steps"]
    return table([*heads, *(f"worst fall, {of}" for of in _KEPT)], rows())


def _fall(run: Run, of: str) -> float:
    return float(run["before"][f"{of}/probability"] - run["after"][f"{of}/probability"])
