"""How fast each engine writes, and whether it writes what the builtin one does."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import takewhile

from amnesis.contracts import Engine
from amnesis.errors import ModelError
from amnesis_evaluation.inference.generation import Prompt, check_engine, generate
from gpu_sections.bench import Bench, Finding

ENGINES: tuple[Engine, ...] = ("builtin", "transformers", "vllm")


def generation(bench: Bench) -> Iterator[Finding]:
    """Let every engine that there is continue the same prompts, greedily and drawing."""
    model = bench.shape.model(bench.device, bench.dtype, initializer_range=0.2).eval()
    count, length, new = (256, 64, 128) if bench.is_cuda else (4, 6, 5)
    draw = random.Random(0)
    sizes = [draw.randint(length // 2, length) for _ in range(count)]
    prompts = [
        Prompt(tuple(draw.randrange(2, bench.shape.vocabulary) for _ in range(size)), new)
        for size in sizes
    ]
    for temperature in (0.0, 1.0):
        how = "greedy" if temperature == 0 else "drawn"
        written: dict[Engine, list[list[int]]] = {}
        for engine in ENGINES:
            try:
                check_engine(engine)
            except ModelError:
                yield Finding(section="generation", what=f"{engine}, {how}", note="no vLLM here")
                continue

            def write(some: list[Prompt], engine: Engine = engine) -> list[list[int]]:
                return generate(
                    model,
                    some,
                    end=frozenset(),
                    pad_token_id=0,
                    temperature=temperature,  # noqa: B023  # used within the turn
                    engine=engine,
                    batch_size="auto",
                )

            if engine != "vllm":  # which begins anew with each call
                write(prompts[:2])
            bench.sync()
            start = time.perf_counter()
            written[engine] = write(prompts)
            bench.sync()
            yield Finding(
                section="generation",
                what=f"{engine}, {how}, {bench.shape_name}",
                value=count * new / (time.perf_counter() - start),
                unit="tokens/s",
                note="with its start" if engine == "vllm" else "",
            )
        for engine in [e for e in ENGINES[1:] if e in written]:
            if engine == "vllm" and temperature:  # which draws other numbers
                continue
            yield _beside(engine, how, written)


def _beside(engine: Engine, how: str, written: dict[Engine, list[list[int]]]) -> Finding:
    """Say how much of an answer is the same, up to the first token that is not."""
    pairs = list(zip(written["builtin"], written[engine], strict=True))
    same = [
        len(list(takewhile(lambda ab: ab[0] == ab[1], zip(a, b, strict=True)))) for a, b in pairs
    ]
    return Finding(
        section="generation",
        what=f"{engine}, {how}: tokens beside builtin's",
        value=1 - sum(same) / sum(len(a) for a, _ in pairs),
        unit="share that differs",
    )
