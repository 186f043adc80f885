"""Time and peak memory of alternatives, side by side in one process."""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Run = Callable[[], object]


def arguments(
    description: str | None, cases: Iterable[str], rounds: int, only: str
) -> argparse.ArgumentParser:
    """Return the parser of a script that measures alternatives in several cases."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    cases = list(cases)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--case", choices=cases, nargs="*", default=cases)
    parser.add_argument("--only", nargs="*", default=[], help=f"{only} to measure")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def new_llama(hidden: int, layers: int, vocabulary: int, device: str, heads: int = 4) -> Any:
    """Return a tied Llama with random weights, always the same ones."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).to(device)


def rounds_of(
    alternatives: Mapping[str, Run], rounds: int, seed: int = 0
) -> dict[str, list[float]]:
    """Return each alternative's seconds, one value a round; every round runs all, in another order.

    Interleaving makes a busy neighbour everybody's: ratios within a round stay meaningful.
    """
    order = list(alternatives)
    shuffle = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for run in alternatives.values():
        run()  # warm-up
    for _ in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            _wait()
            start = time.perf_counter()
            alternatives[name]()
            _wait()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_bytes(run: Run) -> int:
    """Return the most memory that tensors made by one run hold at once, in bytes.

    On a GPU the allocator counts. Elsewhere every storage that an operation gives out is counted
    from then until it is freed, backward included; scratch memory inside a single operation is
    not seen, for no alternative.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        peak: int = torch.cuda.max_memory_allocated()
        return peak - before
    storages = _Storages()
    with storages:
        run()
    return storages.peak


class _Storages(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {_identity(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor) and _identity(t) not in known | self._seen:
                self._count(t.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        identity, size = storage._cdata, storage.nbytes()
        self._seen.add(identity)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, identity, size)

    def _freed(self, identity: int, size: int) -> None:
        self._seen.discard(identity)
        self.live -= size


def _identity(t: torch.Tensor) -> int:
    identity: int = t.untyped_storage()._cdata
    return identity


def table(
    title: str,
    seconds: Mapping[str, list[float]],
    peaks: Mapping[str, int],
    base: str,
    held: int = 0,
) -> str:
    """Lay medians, quartiles and ratios to ``base`` out; ``held`` bytes count into every peak."""
    width = max(map(len, seconds)) + 2
    lines = [
        title,
        f"{'':{width}}{'ms':>9}{'time, ratio (quartiles)':>28}{'peak MB':>10}{'ratio':>7}",
    ]
    for name, own in seconds.items():
        low, middle, high = quartiles(
            [mine / theirs for mine, theirs in zip(own, seconds[base], strict=True)]
        )
        ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        peak = peaks[name] + held
        lines.append(
            f"{name:{width}}{1e3 * statistics.median(own):9.1f}{ratio:>28}"
            f"{peak / 1e6:10.1f}{peak / (peaks[base] + held):7.2f}"
        )
    return "\n".join(lines)


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
