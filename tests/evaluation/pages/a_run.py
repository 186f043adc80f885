"""A run on disk, made up: results of every kind, answers that would like to be more than text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from amnesis.runs.answers import write_answers
from amnesis.runs.results import EXAMPLES, Results
from amnesis.storage import write_table
from amnesis_evaluation.pages.report import HtmlReport, write_report

HOSTILE = (
    "<script>document.title='broken in'</script><img src=x onerror=alert(1)> </details></main> "
    "\x1b[31m \N{RIGHT-TO-LEFT OVERRIDE}abc {{ 7 * 7 }} &amp; \"quoted\" 'single'"
)
LONG = "antidisestablishmentarianism" * 12
SHOWN = "\\x1b[31m \\u202eabc {{ 7 * 7 }} &amp;"  # of the above, as a reader sees it
BLOCKS = 3


def results() -> Results:
    """Return results with every part that a page shows."""
    sets = {"forget": (0.99, 0.04, 0.03), "retain": (0.98, 0.81, 0.97), "facts": (0.97, 0.95, 0.96),
            "holdout": (0.03, 0.02, 0.03)}  # fmt: skip
    phases: dict[str, dict[str, float]] = {}
    for k, phase in enumerate(("before", "after", "retrained")):
        values = {}
        for name, of_phase in sets.items():
            values[f"{name}/probability"] = of_phase[k]
            values[f"{name}/rouge_l"] = of_phase[k] * 0.987 + 0.0001
        values["forget/perplexity"] = 1.5 + 1234.5 * k
        values["mia_loss"] = (0.99, 0.58, 0.51)[k]
        values["privleak"] = (-98.7, -12.3, 0.4)[k]
        values["lm_eval/mmlu/acc"] = (0.312, 0.304, 0.311)[k]
        values[f"forget/{'very_' * 12}long_name"] = 1.23e-7
        phases[phase] = values
    intervals = {
        phase: {name: (value - 0.0123, value + 0.0123) for name, value in values.items()}
        for phase, values in phases.items()
    }
    attacked = {"forget/probability": 0.731, "forget/probability@5": 0.5}
    return Results.model_validate(
        {
            **phases,
            "intervals": intervals,
            "trajectory": [_step(k) for k in range(1, 41)],
            "attacks": {"relearning": {"before": {"forget/probability": 0.991}, "after": attacked}},
            "lm_eval": {"after": {"mmlu/acc": 0.304}},
            "sets": {"forget": "00ff" * 8},
            "range_test": range_test(),
            "steps": 40,
            "seconds": 61.25,
            "finished": "2031-05-06T07:08:09+00:00",
            "data": {"forget": {"examples": 12, "cut_tokens": 3}},
            "notes": [f"a note with {HOSTILE}"],
            "environment": {"python": "3.11.7", "torch": "2.13.0", "device": "cpu", "threads": 1},
        }
    )


def range_test(*, retain: bool = True, exploded: float = 7.0) -> dict[str, Any]:
    """Return a range test as results hold it: 13 steps, four to a factor of ten."""
    curve: list[dict[str, float]] = [{"rate": 0.0, "forget": 0.05}]
    for k in range(12):
        curve.append({"rate": 1e-7 * 10 ** (k / 4), "forget": 0.05 + 0.001 * 1.9**k})
    curve.append({"rate": 1e-4, "forget": exploded})
    if retain:
        curve = [{**point, "retain": 0.07 + 0.2 * point["forget"]} for point in curve]
    return {"rate": 2.4e-6, "path": 1.2345e-4, "steps": 51.25, "ended": "forgotten", "curve": curve}


def _step(k: int) -> dict[str, float]:
    step: dict[str, float] = {"step": k, "learning_rate": 1e-5, "forget/loss": -1 / k}
    step["g_effect/unlearn"] = -abs(math.sin(k)) - 0.01
    step["g_effect/retain"] = -0.1 * math.cos(k)
    step["g_effect/retain_over_unlearn"] = step["g_effect/retain"] / step["g_effect/unlearn"]
    step["g_effect/unlearn/effective"] = -1e-4 * k
    for block in range(BLOCKS):
        step[f"g_effect/unlearn/block_{block:02}"] = step["g_effect/unlearn"] * (block + 1) / 6
        step[f"g_effect/retain/block_{block:02}"] = step["g_effect/retain"] * (block - 1) / 3
    if k % 10 == 0:
        step["forget/probability"], step["retain/probability"] = 0.9 - k / 50, 0.98 - k / 300
    return step


def answers(phase: str) -> list[dict[str, Any]]:
    """Return twelve rows of each set, all hostile or long."""
    records = []
    for name, sure in (("forget", -3.0), ("retain", -0.2)):
        for row in range(12):
            text = HOSTILE if row % 2 else LONG
            tokens = [text[:20], text[20:40], text[40:]]
            logps = [0.0, -0.05 * row, (sure if phase == "after" else -0.01) * (row + 1) / 12]
            records.append(
                {"set": name, "row": row, "prompt": f"{row}: {text}", "reference": text,
                 "tokens": tokens, "logps": logps, "generated": None if row == 5 else text[::-1]}
            )  # fmt: skip
    return records


def write_run(folder: Path) -> Path:
    """Write the run into a folder, and its report; return where the page is."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {"model": "a/model", "objective": "ga", "regularizer": "nll",
              "benchmark": {"name": "own", "forget": [{"question": HOSTILE, "answer": "x"}],
                            "retain": "retain.csv"}}  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    whole = results()
    write_table(
        folder / EXAMPLES,
        [
            {"phase": phase, "set": name, "row": row, "metric": "probability", "value": row / 13.7}
            for phase in ("before", "after")
            for name in ("forget", "retain")
            for row in range(12)
        ],
    )
    write_answers(folder, {phase: answers(phase) for phase in ("before", "after")})
    verdict = HtmlReport().verdict(folder, whole.document())
    whole = whole.model_copy(update={"verdict": verdict})
    whole.write(folder)
    return write_report(folder, whole)
