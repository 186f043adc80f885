"""Encoding of many rows: one at a time against many at once, and what a run of them takes.

    python benchmarks/tokenisation.py                  # 100,000 rows: CPU time, before and after
    python benchmarks/tokenisation.py --rows 1000000   # also the memory that they hold

The texts are those of the fictional benchmark, each with a number of its own, and the tokenizer is
a byte-level BPE of 2,048 tokens: about 43 tokens a row. Each measurement has a process of its own;
time is CPU time of all threads, memory what the process holds beyond what it held without the rows.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAYS = ("rows", "one", "many", "fit")
SAID = {
    "rows": "the rows themselves",
    "one": "encoded one at a time, as tuples",
    "many": "encoded many at once, packed",
    "fit": "a fit of them, to the end of its first step",
}


def rows_of(count: int) -> list[dict[str, str]]:
    """Return so many rows, all of them different."""
    import amnesis

    sets = amnesis.create("benchmark", "fictional").sets().values()
    known = [(row["question"], row["answer"]) for rows in sets for row in rows]
    draw = random.Random(0)
    return [
        {"question": draw.choice(known)[0], "answer": f"{draw.choice(known)[1]} {k}"}
        for k in range(count)
    ]


def tokenizer_of(rows: list[dict[str, str]]) -> Any:
    """Return a byte-level tokenizer, trained on the first rows."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    texts = [f"{row['question']} {row['answer']}" for row in rows[:2000]]
    bpe.train_from_iterator(texts, vocab_size=2048, special_tokens=["<eos>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<eos>")  # noqa: S106  # no password


def held() -> float:
    """Return the memory of this process in MB, without what was given back to the allocator."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def work_of(way: str, tokenizer: Any) -> Callable[[list[dict[str, str]]], Any]:
    """Return what is measured of rows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    import amnesis
    from amnesis.data.examples import encode_rows
    from amnesis.data.templates import Template

    template = Template()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=2, **sizes)

    def fit(rows: list[dict[str, str]]) -> Any:
        training = {"steps": 1, "batch_size": 4}
        unlearner = amnesis.Unlearner(
            LlamaForCausalLM(config), tokenizer, "ga", "nll", training=training, device="cpu"
        )
        return unlearner.fit(rows, rows[:64])

    ways: dict[str, Callable[[list[dict[str, str]]], Any]] = {
        "rows": lambda rows: None,
        "one": lambda rows: [template.encode(row, tokenizer) for row in rows],
        "many": lambda rows: encode_rows(rows, tokenizer, template),
        "fit": fit,
    }
    return ways[way]


def measure(way: str, count: int) -> None:
    """Print the CPU seconds that one way takes, and the MB that its result and its rows hold."""
    from amnesis.cli import quiet_libraries

    quiet_libraries()
    few = rows_of(2000)
    work = work_of(way, tokenizer_of(few))
    work(few)  # what is imported and built once
    base = held()
    rows = rows_of(count)
    start = time.process_time()
    result = work(rows)
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "megabytes": held() - base, "base": base}))
    del result


def main() -> None:
    """Measure every way, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        measure(arguments.way, arguments.rows)
        return
    print(f"{arguments.rows:,} rows: CPU seconds, and MB beyond the libraries'")
    for way in WAYS:
        line = [sys.executable, __file__, "--rows", str(arguments.rows), "--way", way]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{SAID[way]:<45}{found['seconds']:8.1f} s {found['megabytes']:9.0f} MB", flush=True)


if __name__ == "__main__":
    main()
