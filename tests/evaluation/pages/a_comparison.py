"""A comparison on disk: a front, what is beaten, what forgot nothing, and names that are no text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.evaluation.pages.a_run import HOSTILE, LONG
from tests.evaluation.reports.compared import run_folder, values_of

from amnesis.cli.app import main

BEFORE = {"forget/probability": 0.95, "retain/probability": 0.95}
RETRAINED = {"forget/probability": 0.125, "retain/probability": 0.9375}
NAMES = ("ga + kl, sum", "npo + kl, sum", "wga + kl, sum", "simnpo + kl, sum")


def write_runs(folder: Path) -> list[str]:
    """Write six runs of four methods: three seeds, one of fewer metrics, one beaten, one idle."""
    kept = {name: [0.90, 0.99] for name in BEFORE}
    hostile: Any = {"retrained": RETRAINED, "notes": [HOSTILE], "steps": 40, "seconds": 61.25}
    runs = [
        run_folder(folder / f"ga{k}", values_of(k, 0.3, 0.9), seed=k, **hostile) for k in range(3)
    ]
    verdict = {"forgetting": "forgotten", "retention": "damaged", "sentence": f"It {HOSTILE}."}
    few: Any = {"intervals": {"after": {"forget/probability": [0.15, 0.25]}}, "verdict": verdict}
    runs.append(run_folder(folder / "npo", values_of(11, 0.2, 0.7), objective="npo", **few))
    beaten: Any = {"retrained": {**RETRAINED, "retain/probability": 0.875}}
    name = "<img src=x onerror=alert(1)>" + LONG[:80]
    runs.append(run_folder(folder / name, values_of(12, 0.4, 0.6), objective="wga", **beaten))
    idle: Any = {"intervals": {"before": kept, "after": kept}}
    runs.append(run_folder(folder / "idle", values_of(13, 0.94, 0.95), objective="simnpo", **idle))
    return runs


def write_comparison(folder: Path, *arguments: str) -> Path:
    """Compare such runs, as the command does; return where the page is."""
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "comparison"
    assert main(["compare", *write_runs(folder), "--out", str(out), *arguments]) == 0
    return out / "report.html"
