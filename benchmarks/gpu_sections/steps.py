"""How long a step takes beside two bare passes with AdamW, and how often it waits for the GPU."""

from __future__ import annotations

import random
import statistics
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
import training
from measuring import quartiles
from transformers.trainer_callback import TrainerCallback

from amnesis import Unlearner
from gpu_sections.bench import NEEDS_CUDA, Bench, Finding, rows_of, tokenizer_of

NAMES = ("sum", "sago", "pcgrad", "cone", "sago, g_effect", "sago, g_effect every step")
# The lower quartile of the ratio, with everything that is done by default.
BOUNDS = {"sum": 0.92, "sago": 1.03, "pcgrad": 1.03}


class StepBench(training.Bench):
    """The bench of ``training.py`` with a model of a shape, in the type of a GPU's weights."""

    def __init__(self, bench: Bench) -> None:
        """Make model and rows."""
        shape = bench.shape
        self.rows = rows_of(shape.words, 2 * shape.batch)
        self.tokenizer = tokenizer_of(self.rows)
        self.model = shape.model(bench.device, bench.dtype)
        self.case = training.Case(
            shape.hidden, shape.layers, shape.vocabulary, shape.batch, shape.words
        )
        self.steps, self.device = bench.steps, bench.device
        self._weights = self.model.state_dict()  # no copy: at a rate of 1e-6 none is needed

    def watched(self, options: dict[str, Any], callback: TrainerCallback) -> None:
        """Run one contender's steps under a callback that does not wait for the device."""
        sizes = {"steps": self.steps + training.SKIPPED, "batch_size": self.case.batch}
        Unlearner(
            self.model,
            self.tokenizer,
            **{**options, "training": {**sizes, "learning_rate": 1e-6, **options["training"]}},
            callbacks=(callback,),
            device=self.device,
        ).fit(self.rows[: self.case.batch], self.rows[self.case.batch :])


def contender(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """Return the options of a run; weights in bfloat16 are updated as the yardstick's are."""
    options = dict(training.CONTENDERS[name])
    precision = {torch.bfloat16: "bfloat16", torch.float32: "float32"}[dtype]
    more = {"precision": precision, "bfloat16_weights": "plain"}
    return {**options, "training": {**more, **options.get("training", {})}}


def step_ratios(bench: Bench) -> Iterator[Finding]:
    """Time contenders and yardstick in turns; a ratio is taken within its round."""
    steps = StepBench(bench)
    options = {name: contender(name, bench.dtype) for name in NAMES}
    batches = list(steps.fit(options["sum"]).batches)
    steps.bare(batches)
    seconds: dict[str, list[float]] = {"bare": [], **{name: [] for name in NAMES}}
    order, shuffle = list(seconds), random.Random(0)
    for _ in range(bench.rounds):
        shuffle.shuffle(order)
        for name in order:
            taken = steps.bare(batches) if name == "bare" else steps.fit(options[name]).seconds
            seconds[name].append(taken)
    yield Finding(
        section="steps",
        what=f"two bare passes with AdamW, {bench.shape_name}",
        value=1e3 * statistics.median(seconds["bare"]),
        unit="ms",
    )
    for name in NAMES:
        ratios = [a / b for a, b in zip(seconds[name], seconds["bare"], strict=True)]
        low, middle, high = quartiles(ratios) if len(ratios) > 1 else (ratios[0],) * 3
        yield Finding(
            section="steps",
            what=f"{name}, against them",
            value=low,
            unit="ratio, lower quartile",
            bound=BOUNDS.get(name) if bench.is_cuda else None,
            note=f"median {middle:.2f}, upper quartile {high:.2f}",
        )


class _Counter(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Counts the warnings of each step, by the line of code that each is about."""

    def __init__(self, log: list[Any]) -> None:
        self._log, self._start = log, 0
        self.by_step: list[Counter[str]] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Begin with what was said so far."""
        self._start = len(self._log)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Count what was said since."""
        said = [w for w in self._log[self._start :] if "synchroniz" in str(w.message)]
        places = (f"{'/'.join(w.filename.split('/')[-2:])}:{w.lineno}" for w in said)
        self.by_step.append(Counter(places))


def synchronisations(bench: Bench) -> Iterator[Finding]:
    """Count the calls of each step that wait for the device, as torch tells them."""
    steps = StepBench(bench)
    for name in ("sum", "sago", "pcgrad", "cone"):
        waits = _waits(steps, contender(name, bench.dtype), bench)
        yield Finding(
            section="synchronisations",
            what=f"a step with {name}",
            value=float(waits.total()) if bench.is_cuda else None,
            unit="waits",
            note=", ".join(f"{count} × {place}" for place, count in waits.most_common(4))
            if bench.is_cuda
            else NEEDS_CUDA,
        )


def _waits(steps: StepBench, options: dict[str, Any], bench: Bench) -> Counter[str]:
    """Return the waits of the step in the middle, of those after the first, by line of code."""
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        counter = _Counter(log)
        if bench.is_cuda:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            steps.watched(options, counter)
        finally:
            if bench.is_cuda:
                torch.cuda.set_sync_debug_mode("default")
    later = counter.by_step[training.SKIPPED :]  # the first also makes masks and state
    return sorted(later, key=lambda one: one.total())[len(later) // 2]
