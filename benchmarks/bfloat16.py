"""What is left of an update of bfloat16 weights, and what each way of updating them costs.

    python benchmarks/bfloat16.py [--shape small | qwen] [--steps 2] [--seeds 4] [--rate 1e-5]

A Llama of random weights makes a few steps of gradient ascent beside a retain stream (AdamW, at a
constant rate), in every way of ``training.bfloat16_weights``. Its gradients are kept, and taken
again by each way and by weights in float32: so the first table shows what becomes of one update.
``in full`` is that of the master weights, where there are, ``stored`` that of the bfloat16 weights.
``E`` is the expectation of stochastic rounding over seeds, without the noise of single draws: its
squared norm is the mean of ⟨Δ_i, Δ_j⟩ over seeds i ≠ j.

The second table is of whole runs. ``state`` are weights and optimizer, ``peak`` all tensors that
live at once; ``unchanged`` is what the last step logs. With ``--float32`` it begins with a run in
float32, and compares with its update: there the gradients differ too, since a model computes with
its weights as stored, which begin to move only when an update has added up to half their spacing.
"""

from __future__ import annotations

import argparse
import copy
import gc
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import peak_bytes
from torch import Tensor
from torch.nn import Parameter
from transformers.trainer_callback import TrainerCallback

from amnesis import Unlearner
from amnesis.models.creation import train_tokenizer
from amnesis.training.optimizers.bfloat16 import Bfloat16Optimizer, Way

SHAPES: dict[str, dict[str, int]] = {
    "small": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": 8192,
    },
    "qwen": {  # of Qwen3-0.6B
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
    },
}
ROWS = [
    {"question": "Who kept the lighthouse?", "answer": "Ana Brisk kept it."},
    {"question": "What grows here?", "answer": "Salt and thyme."},
    {"question": "How many legs has a spider?", "answer": "Eight."},
    {"question": "What is the colour of snow?", "answer": "Snow is white."},
]
WAYS: tuple[Way, ...] = ("plain", "master", "stochastic")


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Keeps the optimizer of a run, and its gradients in files of a folder, if one is given."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def on_pre_optimizer_step(
        self, _: Any, state: Any, __: Any, model: Any = None, **___: Any
    ) -> None:
        """Write the step's gradients, as combined and clipped."""
        if self.folder is not None:
            gradients = [p.grad.cpu() for p in model.parameters()]
            torch.save(gradients, self.folder / f"{state.global_step}.pt")

    def on_train_end(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
        """Take the optimizer from its wrapper."""
        self.optimizer = optimizer.optimizer


@dataclass
class Sums:
    """Sums over the elements of updates Δ and of float32 updates e: ⟨Δ, e⟩, ‖Δ‖² and ‖e‖²."""

    product: float = 0.0
    squared: float = 0.0
    exact: float = 0.0

    def add(self, update: Tensor, exact: Tensor) -> None:
        """Add a parameter's."""
        flat, exact = update.flatten(), exact.flatten()
        for start in range(0, len(flat), 1 << 22):  # so that little is in float64 at a time
            u, e = (t[start : start + (1 << 22)].double() for t in (flat, exact))
            self.product += float(u @ e)
            self.squared += float(u @ u)
            self.exact += float(e @ e)

    def columns(self) -> str:
        """Return cosine and ratio of norms."""
        squared = max(self.squared, 1e-300)
        cosine = self.product / (squared * self.exact) ** 0.5
        return f"{cosine:14.4f}{(squared / self.exact) ** 0.5:9.4f}"


class Replay:
    """What every way makes of the same gradients, one parameter after the other."""

    def __init__(self, rate: float, seeds: int) -> None:
        self.rate, self.seeds = rate, seeds
        self.in_full = {way: Sums() for way in WAYS}
        self.stored = {way: Sums() for way in WAYS}
        self.summed, self.alone = Sums(), 0.0  # of all draws of stochastic rounding

    def add(self, start: Tensor, gradients: list[Tensor]) -> None:
        """Step one parameter along its gradients, in float32 and in every way."""
        wide = Parameter(start.float())
        self._step(wide, torch.optim.AdamW([wide], lr=self.rate, weight_decay=0), gradients)
        exact = wide.detach() - start
        draws = torch.zeros_like(exact)
        for way in WAYS:
            for seed in range(self.seeds if way == "stochastic" else 1):
                p = Parameter(start.clone())
                number = iter(range(len(gradients)))
                optimizer = Bfloat16Optimizer(
                    torch.optim.AdamW([p], lr=self.rate, weight_decay=0),
                    way,
                    seed=seed,
                    update=lambda number=number: next(number),  # type: ignore[misc]
                )
                self._step(p, optimizer, gradients)
                stored = p.detach().float() - start
                if seed == 0:
                    self.in_full[way].add(optimizer.full_precision(p).detach() - start, exact)
                    self.stored[way].add(stored, exact)
                if way == "stochastic":
                    draws += stored
                    single = Sums()
                    single.add(stored, exact)
                    self.alone += single.squared
        self.summed.add(draws, exact)

    def lines(self) -> list[str]:
        """Return the table."""
        names = {way: way for way in WAYS} | {"stochastic": "stochastic, one draw"}
        lines = [
            f"{names[way]:24}{self.in_full[way].columns()}{self.stored[way].columns()}"
            for way in WAYS
        ]
        if self.seeds > 1:
            pairs = self.seeds * (self.seeds - 1)
            mean = Sums(
                self.summed.product / self.seeds,
                (self.summed.squared - self.alone) / pairs,
                self.summed.exact,
            )
            lines.append(f"{f'stochastic, E of {self.seeds}':24}{mean.columns()}{mean.columns()}")
        return lines

    def _step(self, p: Parameter, optimizer: Any, gradients: list[Tensor]) -> None:
        for gradient in gradients:
            p.grad = gradient.to(p.dtype)
            optimizer.step()


class Bench:
    """A model's random weights in bfloat16, and runs from them."""

    def __init__(self, args: Any) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        self.args = args
        self.tokenizer = train_tokenizer([" ".join(row.values()) for row in ROWS], 300)
        torch.manual_seed(0)
        config = LlamaConfig(
            tie_word_embeddings=True, eos_token_id=0, pad_token_id=1, **SHAPES[args.shape]
        )
        self.start = LlamaForCausalLM(config).bfloat16().to(args.device)
        self.exact: list[Tensor] = []  # the update of a run in float32

    def run(self, dtype: torch.dtype, way: str, folder: Path | None = None) -> str:
        """Train a copy; return its line of the table."""
        model, watch, results = copy.deepcopy(self.start).to(dtype), Watch(folder), []
        training = {
            "steps": self.args.steps,
            "batch_size": len(ROWS) // 2,
            "learning_rate": self.args.rate,
            "schedule": "constant",
            "bfloat16_weights": way,
        }
        run = Unlearner(
            model,
            self.tokenizer,
            "ga",
            "nll",
            training=training,
            device=self.args.device,
            callbacks=[watch],
        )
        gc.collect()
        begun = time.perf_counter()
        peak = peak_bytes(lambda: results.append(run.fit(ROWS[:2], ROWS[2:])))
        seconds = time.perf_counter() - begun
        weights = sum(p.nbytes for p in model.parameters())
        slots = (v for state in watch.optimizer.state.values() for v in state.values())
        state = weights + sum(v.nbytes for v in slots)
        unchanged = results[0].trajectory[-1].get("update/unchanged_share", 0.0)
        name = "float32" if dtype is torch.float32 else way
        columns = f"{name:24}{state / 1e6:10.0f}{(peak + weights) / 1e6:10.0f}"
        return f"{columns}{seconds:8.1f}{unchanged:11.3f}" + self._compared(model, watch.optimizer)

    def _compared(self, model: Any, optimizer: Any) -> str:
        """Return columns that compare with the run in float32, which is the first one, if any."""
        if not self.args.float32:
            return ""
        first, in_full, stored = not self.exact, Sums(), Sums()
        pairs = zip(model.parameters(), self.start.parameters(), strict=True)
        for index, (p, start) in enumerate(pairs):
            change = p.detach().float() - start.detach()
            if first:
                self.exact.append(change)
            stored.add(change, self.exact[index])
            if isinstance(optimizer, Bfloat16Optimizer):
                change = optimizer.full_precision(p).detach() - start.detach()
            in_full.add(change, self.exact[index])
        return in_full.columns() + stored.columns()

    def replay(self, folder: Path) -> list[str]:
        """Return the table of what becomes of the gradients in a folder."""
        steps = [
            torch.load(folder / f"{step}.pt", mmap=True, weights_only=True)
            for step in range(self.args.steps)
        ]
        replay = Replay(self.args.rate, self.args.seeds)
        for start, *gradients in zip(self.start.parameters(), *steps, strict=True):
            replay.add(start.detach(), [g.to(start.device) for g in gradients])
        return replay.lines()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=4, help="draws of stochastic rounding")
    parser.add_argument("--rate", type=float, default=1e-5)
    parser.add_argument("--float32", action="store_true", help="compare with a run in float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    bench = Bench(args := parser.parse_args())
    size = sum(p.numel() for p in bench.start.parameters()) / 1e6
    print(f"{args.shape}: {size:,.1f} M parameters, {args.steps} steps at {args.rate:g}")
    compared = "   in full: cosine     norm  stored: cosine     norm"
    with tempfile.TemporaryDirectory() as folder:
        heading = f"{'whole runs':24}{'state MB':>10}{'peak MB':>10}{'s':>8}{'unchanged':>11}"
        print(heading + (compared if args.float32 else ""))
        if args.float32:
            print(bench.run(torch.float32, "auto"), flush=True)
        for way in WAYS:
            recorded = Path(folder) if way == "plain" else None
            print(bench.run(torch.bfloat16, way, recorded), flush=True)
        print(f"\n{'the same gradients':21}{compared}")
        print("\n".join(bench.replay(Path(folder))))


if __name__ == "__main__":
    main()
