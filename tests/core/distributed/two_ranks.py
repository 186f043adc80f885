"""One of two ranks: gradients of both streams, and their combinations, against one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.autograd import backward
from transformers import LlamaConfig, LlamaForCausalLM

import amnesis
from amnesis.contracts.stream import StreamLoss
from amnesis.data.batches import Batch, collate
from amnesis.data.examples import Example
from amnesis.data.templates import Encoded
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import build_stream
from amnesis.distributed.processes import added_over_ranks
from amnesis.distributed.shards import is_sharded
from amnesis.distributed.sums import RankSum
from amnesis.scoring.forward import score
from amnesis.scoring.head import ChunkedHead
from amnesis.scoring.scores import Needs
from amnesis.training.report import StreamReport
from amnesis.training.streams import Streams

COMBINERS: list[dict[str, Any]] = [
    {"name": "sum", "alpha": 0.5},
    {"name": "pcgrad"},
    {"name": "pcgrad", "scope": "global"},
    {"name": "sago"},
    {"name": "sago", "keep_retain": True},
    {"name": "blur"},
    {"name": "ngdiff"},
    {"name": "gru"},
    {"name": "cone"},
    {"name": "torchjd", "weighting": "mgda"},
    {"name": "torchjd", "weighting": "upgrad"},
]
ALONE: dict[str, dict[str, Any]] = {
    "forget": {"name": "sum", "gamma": 1.0, "alpha": 0.0},
    "retain": {"name": "sum", "gamma": 0.0, "alpha": 1.0},
}


def examples() -> list[Example]:
    """Twelve ragged examples, the same on every rank."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for index in range(12):
        length = 5 + index
        ids = torch.randint(0, 97, (length,), generator=generator).tolist()
        made.append(Example(index, {}, {"answer": Encoded(tuple(ids), 2 + index % 3)}))
    return made


def build(dtype: torch.dtype, sharded: bool) -> Any:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=97, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        initializer_range=0.2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(dtype)
    if sharded:
        from torch.distributed.fsdp import fully_shard

        for block in model.model.layers:
            fully_shard(block)
        fully_shard(model)
    return model


def run(model: Any, mine: list[Example], micro: int, streams: Streams, reduce_counts: bool) -> None:
    times = dist.get_world_size() if is_sharded(next(model.parameters())) else 1
    half = len(mine) // 2
    for name, chosen in (("forget", mine[:half]), ("retain", mine[half:])):
        kind = "objective" if name == "forget" else "regularizer"
        loss: StreamLoss = build_stream(
            name, kind, "wga" if name == "forget" else "nll", default_registry()
        )
        batches: list[Batch] = [
            collate(chosen[k : k + micro], 0) for k in range(0, len(chosen), micro)
        ]
        counts = loss.counts(batches)
        if reduce_counts:
            counts = added_over_ranks(counts)
        for index, batch in enumerate(batches):
            into = streams.forget if name == "forget" else streams.retain
            with into(last=index == len(batches) - 1):
                # fully_shard averages over ranks, but these shares of one mean are to be added.
                backward(times * loss(score(model, batch, loss.needs), counts))
        streams.complete(name)


def combined(
    choice: dict[str, Any],
    dtype: torch.dtype,
    mine: list[Example],
    micro: int,
    how: str | None = None,
) -> tuple[list[torch.Tensor], StreamReport]:
    """Return what a combiner leaves in ``p.grad`` on this process, or (``how``) on both ranks."""
    model = build(dtype, sharded=how == "sharded")
    summing = RankSum if how == "plain" else None
    streams = Streams(model.named_parameters(), amnesis.create("combiner", **choice), summing)
    streams.watch()
    run(model, mine, micro, streams, reduce_counts=how is not None)
    report = streams.combine()
    return [full(p.grad).clone() for p in model.parameters()], report


def full(gradient: Any) -> torch.Tensor:
    whole: torch.Tensor = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    return whole


def norm(tensors: list[torch.Tensor]) -> float:
    return float(torch.stack([t.double().norm() for t in tensors]).norm())


def error(got: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    gaps = [a.double() - b.double() for a, b in zip(got, expected, strict=True)]
    return norm(gaps) / norm(expected)


def chunked_error(how: str, rank: int, everyone: list[Example]) -> float:
    """Read a head in chunks on a rank with many labels, beside one that has too few for it."""
    model = build(torch.float64, sharded=how == "sharded")
    head = ChunkedHead(model, chunk_bytes=8 * 8 * model.config.vocab_size)
    head.decide()
    mine = collate(everyone[-3:] if rank == 0 else everyone[:1], 0)
    # Ranks that gather weights together do all alike.
    assert head.serves(int(mine.mask.sum())) == (rank == 0 or how == "sharded")
    needs = Needs(logps=True)
    in_chunks = score(model, mine, needs, head=head).logps
    return float((in_chunks - score(model, mine, needs).logps).detach().abs().max())


def compare(rank: int, folder: Path, how: str) -> None:
    """Write the errors of each stream and each combiner beside one process."""
    everyone = examples()
    # Interleaved, so that each rank has three forget and three retain examples of the whole.
    mine = everyone[:6][rank::2] + everyone[6:][rank::2]
    found: dict[str, float] = {"float64 chunks": chunked_error(how, rank, everyone)}
    for dtype in (torch.float32, torch.float64):
        # The sum with only one weight leaves that stream's own gradient, to the last bit.
        whole = {name: combined(one, dtype, everyone, 6)[0] for name, one in ALONE.items()}
        for accumulation in (1, 3):
            micro = 3 // accumulation
            label = f"{str(dtype)[6:]} accumulation {accumulation}"
            both = {n: combined(one, dtype, mine, micro, how)[0] for n, one in ALONE.items()}
            for name, got in both.items():
                found[f"{label} {name}"] = error(got, whole[name])
            for choice in COMBINERS:
                got, report = combined(choice, dtype, mine, micro, how)
                # Combined from these very streams: SAGO is discontinuous, so equal inputs count.
                expected = amnesis.create("combiner", **choice).combine(
                    both["forget"], both["retain"]
                )
                found[f"{label} {choice}"] = error(got, [c for c in expected if c is not None])
                for name, seen in (("forget", report.forget_norm), ("retain", report.retain_norm)):
                    assert seen is not None
                    assert abs(seen / norm(both[name]) - 1) < 1e-5
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
