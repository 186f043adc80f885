"""The fingerprint changes with what a model computes, and with nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.processes import on_two_ranks

from amnesis.models import fingerprint as module
from amnesis.models.fingerprint import fingerprint
from amnesis.models.loading import ModelSettings, load_model
from amnesis.models.trainable import LoraSettings, with_lora


@pytest.fixture
def adapted(tiny_llama: Any) -> Any:
    """A tiny Llama with two adapters that both say something."""
    model = with_lora(tiny_llama, LoraSettings(r=2, alpha=8))
    model.add_adapter("other", copy.deepcopy(model.peft_config["default"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        computed: torch.Tensor = model(input_ids=torch.arange(3, 15)[None]).logits
    return computed


def rescaled(model: Any) -> None:
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            layer.scaling = {name: -scale for name, scale in layer.scaling.items()}


def with_other_norm(model: Any) -> None:
    model.get_base_model().model.norm.variance_epsilon = 0.5


def with_rounded_frequencies(model: Any) -> None:
    rotary = model.get_base_model().model.rotary_emb
    rotary.inv_freq = rotary.inv_freq.bfloat16().float()


@pytest.mark.parametrize(
    "change",
    [
        rescaled,
        lambda model: model.set_adapter("other"),
        lambda model: model.base_model.set_adapter(["default", "other"]),
        lambda model: model.base_model.disable_adapter_layers(),
        lambda model: model.merge_adapter(),
        with_other_norm,
        with_rounded_frequencies,
    ],
    ids=["scaling", "active", "both active", "off", "merged", "epsilon", "frequencies"],
)
def test_what_the_forward_pass_reads_changes_it(adapted: Any, change: Callable[[Any], Any]) -> None:
    before, first = logits(adapted), fingerprint(adapted)
    change(adapted)
    assert not torch.equal(logits(adapted), before)
    assert fingerprint(adapted) != first


def test_an_adapter_that_is_off_for_a_while_is_known_again(adapted: Any) -> None:
    first = fingerprint(adapted)
    with adapted.disable_adapter():
        assert fingerprint(adapted) != first
    assert fingerprint(adapted) == first


def test_how_a_model_is_trained_or_where_it_comes_from_does_not(
    tiny_llama: Any, tmp_path: Path
) -> None:
    first = fingerprint(tiny_llama.eval())
    tiny_llama.train()
    tiny_llama.gradient_checkpointing_enable()
    tiny_llama.requires_grad_(False)
    assert fingerprint(tiny_llama) == first
    logits(tiny_llama)
    for folder in (tmp_path / "one", tmp_path / "two"):
        tiny_llama.save_pretrained(folder)
        loaded = load_model(ModelSettings(path=str(folder)), device="cpu")
        assert fingerprint(loaded) == first


def test_every_byte_counts_also_where_a_tensor_is_read_in_pieces(
    tiny_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fingerprint(tiny_llama)
    monkeypatch.setattr(module, "_BYTES_AT_ONCE", 100)
    assert fingerprint(tiny_llama) == whole
    weight = tiny_llama.model.layers[1].mlp.down_proj.weight
    for place in ((0, 0), (13, 40), (-1, -1)):
        with torch.no_grad():
            weight[place] += 1e-6
        assert fingerprint(tiny_llama) != whole
        whole = fingerprint(tiny_llama)
    # Not the order of memory: the same values, transposed there.
    weight.data = weight.data.T.contiguous().T
    assert fingerprint(tiny_llama) == whole


def _member(rank: int, folder: Path) -> None:
    from torch.distributed.fsdp import fully_shard
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
    )
    read: list[int] = []
    digest = module._digest_of

    def counted(model: Any, algorithm: Any) -> str:
        read.append(rank)
        return digest(model, algorithm)

    module._digest_of = counted
    replicated, reads = fingerprint(model), len(read)
    fully_shard(model)
    sharded = fingerprint(model)
    if rank == 1:
        with torch.no_grad():
            model.lm_head.weight.to_local()[0, 0] += 1
    changed = fingerprint(model)
    values = [replicated, reads, sharded, changed]
    (folder / f"{rank}.json").write_text(json.dumps(values))


def test_two_ranks_read_the_weights_once_and_gather_shards(tmp_path: Path) -> None:
    on_two_ranks(_member, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first[1], second[1]) == (1, 0), "replicas are read by the first rank of a node"
    assert first[0] == second[0] == first[2] == second[2], "sharding changes no function"
    assert first[3] == second[3] != first[2], "one rank's shard has changed"


def test_a_secure_fingerprint_is_sha256_of_the_same(tiny_llama: Any) -> None:
    first = fingerprint(tiny_llama, secure=True)
    assert len(first) == 64
    assert fingerprint(copy.deepcopy(tiny_llama), secure=True) == first
    with torch.no_grad():
        tiny_llama.model.norm.weight[0] += 1e-3
    assert fingerprint(tiny_llama, secure=True) != first
    assert len(fingerprint(tiny_llama)) == 32
