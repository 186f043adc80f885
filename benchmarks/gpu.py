"""What a GPU makes of it: right numbers, ratios of steps, waits, memory, tokens per second.

    python benchmarks/gpu.py [--shape 8B] [--section steps …] [--out benchmarks/results/gpu.json]
    python benchmarks/gpu.py --smoke     # every section on this CPU, with a tiny model

One command for whoever has a GPU. The shape is that of the largest Llama, of 8B, 3B, 1B and 0.1B,
whose step fits; weights are random, in bfloat16. Ratios are against two bare passes with AdamW, in
turns, in one process. Every number has its bound beside it, or only tells. All findings are written
to one JSON; the exit code is 1 where a bound is not met or a section failed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA: sums in one order

import torch
from gpu_sections.bench import SHAPES, Bench, Finding, fitting
from gpu_sections.correctness import correctness
from gpu_sections.generation import generation
from gpu_sections.memory import memory_plan
from gpu_sections.steps import step_ratios, synchronisations

from amnesis.cli import quiet_libraries
from amnesis.errors import one_line
from amnesis.storage import write_json

SECTIONS: dict[str, Callable[[Bench], Iterator[Finding]]] = {
    "correctness": correctness,
    "steps": step_ratios,
    "synchronisations": synchronisations,
    "memory": memory_plan,
    "generation": generation,
}


def findings_of(name: str, bench: Bench) -> list[Finding]:
    """Return what a section finds; of one that fails, what it found before, and why it failed."""
    found: list[Finding] = []
    try:
        found.extend(SECTIONS[name](bench))
    except Exception as error:  # the other sections are worth their time
        reason = f"failed: {type(error).__name__}: {one_line(error)[:300]}"
        found.append(Finding(section=name, what="the rest of the section", note=reason))
    gc.collect()
    if bench.is_cuda:
        torch.cuda.empty_cache()
    return found


def line_of(found: Finding) -> str:
    """Lay a finding out."""
    number = "" if found.value is None else f"{found.value:.4g} {found.unit}"
    bound = "" if found.bound is None else f"≤ {found.bound:g}"
    verdict = {True: "met", False: "MISSED", None: ""}[found.met]
    return f"  {found.what:62} {number:32} {bound:8} {verdict:7} {found.note}".rstrip()


def about(bench: Bench) -> dict[str, str | int]:
    """Return what was measured, on what."""
    name = torch.cuda.get_device_name(0) if bench.is_cuda else platform.machine()
    return {
        "device": name,
        "shape": bench.shape_name,
        "parameters": bench.shape.parameters(),
        "dtype": str(bench.dtype).removeprefix("torch."),
        "rounds": bench.rounds,
        "steps": bench.steps,
        "cuda": str(torch.version.cuda),
        **{library: version(library) for library in ("amnesis", "torch", "transformers")},
    }


def main() -> None:
    """Go through the sections, show what each finds, and write it all down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, help="the largest that fits, by default")
    parser.add_argument("--section", nargs="*", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=7, help="of contenders, in turns")
    parser.add_argument("--steps", type=int, default=8, help="of each run in a round")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, on the CPU")
    given = parser.parse_args()
    if not (given.smoke or torch.cuda.is_available()):
        sys.exit("there is no GPU here; --smoke goes through every section on the CPU")
    quiet_libraries()
    bench = Bench(
        device="cpu" if given.smoke else "cuda",
        shape_name="tiny" if given.smoke else given.shape or fitting(),
        rounds=1 if given.smoke else given.rounds,
        steps=2 if given.smoke else given.steps,
    )
    start, found = time.perf_counter(), []
    print(json.dumps(about(bench)), flush=True)
    for name in given.section:
        print(name, flush=True)
        for finding in findings_of(name, bench):
            print(line_of(finding), flush=True)
            found.append(finding)
    document = {
        **about(bench),
        "seconds": round(time.perf_counter() - start),
        "findings": [{**asdict(one), "met": one.met} for one in found],
    }
    write_json(given.out, document)
    print(f"written to {given.out}")
    failed = any(one.met is False or one.note.startswith("failed:") for one in found)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
