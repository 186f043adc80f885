"""Whether the device computes what the CPU does, in every precision, and the same twice."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import TrainerCallback

from amnesis import Unlearner
from gpu_sections.bench import NEEDS_CUDA, SHAPES, Bench, Finding, rows_of, tokenizer_of

STEPS = 6
# The largest relative differences of a step's values that rounding explains, with an order of
# magnitude to spare for the steps before it.
BOUNDS = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 1e-2}
FLOOR = 1e-2  # a loss below it, such as KL's at the start, is compared absolutely
# The same of all that the run changed the weights by: AdamW's first steps are the gradient's sign.
WEIGHTS_BOUND = 1e-2
COMPARED = ("forget/loss", "retain/loss", "gradients/forget_norm", "gradients/retain_norm")
METHOD: dict[str, Any] = {
    "objective": "npo",
    "regularizer": ["kl", "nll"],
    "combiner": "sago",
    "probes": [{"name": "g_effect", "every": 2}],
}


class CutOffError(Exception):
    """The run was cut off, as by a machine that was switched off."""


class _CutAt(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._step:
            raise CutOffError


class Run:
    """One small model and its rows, unlearned again and again from the same weights."""

    def __init__(self) -> None:
        """Make the rows."""
        self.rows = rows_of(16, 8)
        self.tokenizer = tokenizer_of(self.rows)

    def fit(
        self,
        device: str,
        precision: str = "float32",
        *,
        output: Path | None = None,
        cut: int | None = None,
        dropout: float = 0.0,
    ) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
        """Return the weights after the run, on the CPU, and the values of its steps."""
        model = SHAPES["tiny"].model("cpu", torch.float32, attention_dropout=dropout).to(device)
        fitted = Unlearner(
            model,
            self.tokenizer,
            **METHOD,
            training={
                "steps": STEPS,
                "batch_size": 4,
                "micro_batch_size": 2,
                "learning_rate": 1e-3,
                "precision": precision,
                "statistics_every": 1,
                **({} if output is None else {"save_every": 2}),
            },
            callbacks=[] if cut is None else [_CutAt(cut)],
            device=device,
            output=output,
        ).fit(self.rows[:4], self.rows[4:], resume=output is not None)
        return {k: v.float().cpu() for k, v in model.state_dict().items()}, fitted.trajectory


def correctness(bench: Bench) -> Iterator[Finding]:
    """Compare devices and precisions, a run with its repetition, and one that was cut off."""
    run = Run()
    start = SHAPES["tiny"].model("cpu", torch.float32).state_dict()
    weights, values = run.fit(bench.device)
    on_cpu = run.fit("cpu")
    for found in (
        _risks("float32 against the CPU", values, on_cpu[1], BOUNDS["float32"]),
        _weights("float32 against the CPU", start, weights, on_cpu[0]),
    ):
        yield found if bench.is_cuda else replace(found, value=None, note=NEEDS_CUDA)
    half = run.fit(bench.device, "bfloat16")[1]
    yield _risks("bfloat16 against float32", half, values, BOUNDS["bfloat16"])
    if bench.is_cuda:
        yield from _scaled(run.fit(bench.device, "float16")[1], values)
    else:
        yield Finding(section="correctness", what="float16 against float32", note=NEEDS_CUDA)
    with _deterministic(), tempfile.TemporaryDirectory() as folder:
        yield from _repeated(run, bench.device, Path(folder))


def _scaled(half: list[dict[str, float]], values: list[dict[str, float]]) -> Iterator[Finding]:
    """Compare the first step alone: the scaler skips a step until its factor has come down."""
    yield _risks("float16 against float32, first step", half[:1], values[:1], BOUNDS["float16"])
    yield Finding(
        section="correctness",
        what="float16 with a scaler: the last retain loss beside the first",
        value=half[-1]["retain/loss"] / half[0]["retain/loss"],
        unit="ratio",
        bound=1.0,
    )


def _repeated(run: Run, device: str, folder: Path) -> Iterator[Finding]:
    """Compare a run with dropout, to the bit, with itself and with one that was cut off."""
    once = run.fit(device, dropout=0.1)[0]
    yield _to_the_bit("a run and its repetition, with dropout", once, run.fit(device, dropout=0.1))
    with suppress(CutOffError):
        run.fit(device, dropout=0.1, output=folder, cut=3)
    resumed = run.fit(device, dropout=0.1, output=folder)
    yield _to_the_bit("a run and a resumed one, with dropout", once, resumed)


def _risks(
    what: str, values: list[dict[str, float]], others: list[dict[str, float]], bound: float
) -> Finding:
    """Compare losses and gradient norms of both streams, step by step."""
    worst = max(
        abs(mine[name] - theirs[name]) / max(abs(theirs[name]), FLOOR)
        for mine, theirs in zip(values, others, strict=True)
        for name in COMPARED
    )
    return Finding(
        section="correctness",
        what=f"{what}: losses and norms",
        value=worst,
        unit="relative",
        bound=bound,
    )


def _weights(
    what: str,
    start: dict[str, torch.Tensor],
    mine: dict[str, torch.Tensor],
    theirs: dict[str, torch.Tensor],
) -> Finding:
    """Compare what two runs changed the weights by."""
    apart = sum(float((mine[k] - theirs[k]).square().sum()) for k in start)
    moved = sum(float((theirs[k] - start[k]).square().sum()) for k in start)
    return Finding(
        section="correctness",
        what=f"{what}: change of the weights",
        value=(apart / moved) ** 0.5,
        unit="relative",
        bound=WEIGHTS_BOUND,
    )


def _to_the_bit(
    what: str,
    once: dict[str, torch.Tensor],
    again: tuple[dict[str, torch.Tensor], list[dict[str, float]]],
) -> Finding:
    different = sum(not torch.equal(once[k], again[0][k]) for k in once)
    return Finding(
        section="correctness", what=what, value=float(different), unit="tensors differ", bound=0
    )


@contextmanager
def _deterministic() -> Iterator[None]:
    """Ask for kernels that add in one order; what has none says so."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
