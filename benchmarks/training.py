"""A whole step of the trainer, optimizer and logging included, against two bare passes with AdamW.

    python benchmarks/training.py [--rounds 9] [--steps 10] [--case parameters] [--only sago cone]

The yardstick is what any trainer does that sees one loss: a forward and backward pass of each
stream's batch through the model's own loss, gradients added up by autograd, clipping, AdamW.
Each contender is ``Unlearner.fit`` over the same batches with its default settings; the seconds
are of its steps alone, from the loading of a batch to the callbacks. Rounds are interleaved, and a
ratio is taken within its round, of means over steps: what is done now and then, such as the
statistics of both gradients or a probe, weighs as often as it is done.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from measuring import arguments, new_llama, quartiles
from torch.autograd import backward
from transformers.trainer_callback import TrainerCallback

from amnesis import Unlearner
from amnesis.cli import quiet_libraries
from amnesis.models.creation import train_tokenizer

SKIPPED = 1  # the first step also makes masks, memory, the optimizer's state
NPO: dict[str, Any] = {"objective": "npo", "regularizer": "nll"}
CONTENDERS: dict[str, dict[str, Any]] = {
    "sum": {**NPO, "combiner": "sum"},
    "sago": {**NPO, "combiner": "sago"},
    "pcgrad": {**NPO, "combiner": "pcgrad"},
    "cone": {**NPO, "combiner": "cone"},
    "ga, sago": {"objective": "ga", "regularizer": "nll", "combiner": "sago"},
    "kl, sago": {"objective": "npo", "regularizer": "kl", "combiner": "sago"},
    "sago, no statistics": {**NPO, "combiner": "sago", "training": {"statistics_every": 1000}},
    "sago, statistics every step": {**NPO, "combiner": "sago", "training": {"statistics_every": 1}},
    "sago, sam": {**NPO, "combiner": "sago", "robust": {"name": "sam", "rho": 0.01}},
    "sago, random": {**NPO, "combiner": "sago", "robust": {"name": "random", "sigma": 0.001}},
    "sago, g_effect": {**NPO, "combiner": "sago", "probes": ["g_effect"]},
    "sago, g_effect every step": {
        **NPO,
        "combiner": "sago",
        "probes": [{"name": "g_effect", "every": 1}],
    },
}
# Of what a ratio is taken besides the yardstick: the same without what is priced.
PLAIN = "sago"


@dataclass(frozen=True)
class Case:
    """A model and a batch: which of the two dominates is what the cases differ in."""

    hidden: int
    layers: int
    vocabulary: int
    batch: int
    words: int


CASES = {
    "activations": Case(192, 4, 2048, 8, 160),
    "parameters": Case(512, 4, 8192, 2, 12),
    "tiny": Case(4, 1, 300, 2, 4),
}


class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Keeps a run's batches, and the seconds of each of its steps."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.batches: Any = None

    def on_train_begin(self, *_: Any, train_dataloader: Any = None, **__: Any) -> None:
        """Keep where the batches come from."""
        self.batches = train_dataloader

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Begin with the first step."""
        if not self.ends:
            self.ends.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """The mean of a step."""
        return (self.ends[-1] - self.ends[SKIPPED]) / (len(self.ends) - 1 - SKIPPED)


class Bench:
    """One case's model and rows, put back to where they were before each run."""

    def __init__(self, case: Case, steps: int, device: str) -> None:
        words = random.Random(0)
        vocabulary = [f"w{n:04x}" for n in range(case.vocabulary)]
        self.rows = [
            {"question": "?", "answer": " ".join(words.choices(vocabulary, k=case.words))}
            for _ in range(2 * case.batch)
        ]
        texts = [" ".join(vocabulary), *(f"{r['question']} {r['answer']}" for r in self.rows)]
        self.tokenizer = train_tokenizer(texts, case.vocabulary)
        heads = max(1, case.hidden // 64)
        self.model = new_llama(case.hidden, case.layers, case.vocabulary, device, heads)
        self.case, self.steps, self.device = case, steps, device
        self._weights = {k: v.clone() for k, v in self.model.state_dict().items()}

    def fit(self, options: dict[str, Any]) -> Clock:
        """Run one contender's steps."""
        self.model.load_state_dict(self._weights)
        clock, chosen = Clock(), dict(options)
        sizes = {
            "steps": self.steps + SKIPPED,
            "batch_size": self.case.batch,
            "learning_rate": 1e-6,
        }
        Unlearner(
            self.model,
            self.tokenizer,
            training={**sizes, **chosen.pop("training", {})},
            callbacks=(clock,),
            device=self.device,
            **chosen,
        ).fit(self.rows[: self.case.batch], self.rows[self.case.batch :])
        return clock

    def bare(self, batches: list[Any]) -> float:
        """Run as many steps of two passes and AdamW; return the seconds of one."""
        self.model.load_state_dict(self._weights)
        self.model.train()
        parameters = list(self.model.parameters())
        optimizer = torch.optim.AdamW(parameters, 1e-6, weight_decay=0.0)
        ends = []
        for index in range(self.steps + SKIPPED + 1):
            ends.append(time.perf_counter())
            for stream, sign in (("forget", -1.0), ("retain", 1.0)):
                for batch in batches[index % len(batches)].of(stream):
                    given = {k: v.to(self.device) for k, v in tensors_of(batch).items()}
                    backward(sign * self.model(**given, use_cache=False).loss)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        return (ends[-1] - ends[SKIPPED]) / self.steps


def tensors_of(batch: Any) -> dict[str, torch.Tensor]:
    """Return what a transformers model takes of a stream's batch."""
    text = batch.texts["answer"] if hasattr(batch, "texts") else batch
    return {
        "input_ids": text.input_ids,
        "attention_mask": text.attention_mask,
        "labels": text.labels,
    }


def measure(name: str, given: argparse.Namespace) -> str:
    """Run one case; return its table."""
    bench = Bench(CASES[name], given.steps, given.device)
    chosen = {k: v for k, v in CONTENDERS.items() if not given.only or k in given.only}
    batches = list(bench.fit(CONTENDERS["sum"]).batches)
    bench.bare(batches)
    seconds: dict[str, list[float]] = {"bare": [], **{k: [] for k in chosen}}
    order = list(seconds)
    shuffle = random.Random(0)
    for _ in range(given.rounds):
        shuffle.shuffle(order)
        for contender in order:
            seconds[contender].append(
                bench.bare(batches) if contender == "bare" else bench.fit(chosen[contender]).seconds
            )
    count = sum(p.numel() for p in bench.model.parameters())
    lines = [
        f"{name}: {count / 1e6:.2f} M parameters, {CASES[name].batch} rows a stream, "
        f"{given.rounds} rounds of {given.steps} steps, {torch.get_num_threads()} threads, "
        f"{given.device}",
        f"{'':28} {'ms':>8} {'/ bare':>8} {'quartiles':>16} {'/ ' + PLAIN:>8}",
    ]
    for contender, values in seconds.items():
        ratios = [a / b for a, b in zip(values, seconds["bare"], strict=True)]
        low, middle, high = quartiles(ratios)
        beside = ""
        if PLAIN in seconds:
            pairs = zip(values, seconds[PLAIN], strict=True)
            beside = f"{statistics.median(a / b for a, b in pairs):8.2f}"
        lines.append(
            f"{contender:28} {1e3 * statistics.median(values):8.1f} {middle:8.2f} "
            f"{low:8.2f}–{high:.2f} {beside:>10}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print every case's table."""
    parser = arguments(__doc__, CASES, 9, "contenders")
    parser.add_argument("--steps", type=int, default=10, help="of each run")
    given = parser.parse_args()
    quiet_libraries()
    for name in given.case:
        print(measure(name, given), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
