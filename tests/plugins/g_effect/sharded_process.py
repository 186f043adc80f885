"""One of two processes: the G-effect of a sharded model against that of the whole one."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch.autograd import backward
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

from amnesis.data.batches import Batch
from amnesis.errors import ModelError
from amnesis.scoring.forward import score
from amnesis.scoring.scores import Needs
from amnesis_plugins.g_effect import measure_tokens, products_with, risk_gradient
from amnesis_plugins.g_effect.ghost import Ghost


def effects(model: LlamaForCausalLM, batch: Batch) -> list[dict[str, float]]:
    v = risk_gradient(model, [batch]).direction
    with products_with(model, [v, v]) as tally:
        scores = score(model, batch, Needs(logps=True))
        backward((scores.logps.exp() * scores.mask).sum())
    return tally.by_layer()


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    whole = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            tie_word_embeddings=True,
            initializer_range=0.2,
        )
    ).double()
    ids = torch.randint(40, (3, 9))
    batch = Batch(
        ids, torch.ones_like(ids), ids.masked_fill(torch.arange(9) < 3, -100), tuple("abc")
    )
    wanted = effects(whole, batch)
    dist.init_process_group("gloo")
    sharded = copy.deepcopy(whole)
    for block in sharded.model.layers:
        fully_shard(block)
    fully_shard(sharded)
    found = effects(sharded, batch)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for layer, value in other.items():
            assert abs(one[layer] - value) <= 1e-6 * max(map(abs, other.values())), (one, other)
    for refused in (lambda: measure_tokens(sharded, batch, {}), lambda: Ghost(sharded, [])):
        with pytest.raises(ModelError, match="sharded"):
            refused()
    print(f"rank {dist.get_rank()} agrees")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
