"""Tiny models of four architectures, exact in float64, and batches of real questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from amnesis.data.batches import Batch, collate
from amnesis.data.examples import encode_rows
from amnesis.data.templates import Template


def llama(vocabulary: int, tied: bool = False, pad: int | None = None) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=tied,
            attention_bias=not tied,
            mlp_bias=not tied,
            initializer_range=0.15,
            pad_token_id=pad,
        )
    )


def neox(vocabulary: int) -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocabulary,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            hidden_dropout=0.1,
            attention_dropout=0.1,
            initializer_range=0.15,
        )
    )


def gpt2(vocabulary: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_embd=24,
            n_layer=2,
            n_head=4,
            n_positions=128,
            initializer_range=0.15,
        )
    )


def phi(vocabulary: int) -> Any:
    from transformers import PhiConfig, PhiForCausalLM

    return PhiForCausalLM(
        PhiConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            initializer_range=0.15,
        )
    )


def with_lora(model: Any, *targets: str) -> Any:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, target_modules=list(targets)))
    for name, p in adapted.named_parameters():
        if "lora_B" in name:  # B starts at zero, which would hide half of the gradient
            torch.nn.init.normal_(p, std=0.1)
    return adapted


def gemma3(vocabulary: int) -> Any:
    """Scaled embeddings with a padding row, and norms of single heads before tokens."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=vocabulary,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=6,
            query_pre_attn_scalar=6,
            max_position_embeddings=128,
            initializer_range=0.15,
            pad_token_id=0,
        )
    )


MODELS: dict[str, Callable[[int], Any]] = {
    "llama, biased": llama,
    "llama, tied": lambda v: llama(v, tied=True),
    "llama, tied, padding row": lambda v: llama(v, tied=True, pad=0),
    "gemma3, scaled embedding": gemma3,
    "gpt_neox, biased": neox,
    "gpt2, tied, positions": gpt2,
    "phi, biased": phi,
    "llama, LoRA": lambda v: with_lora(llama(v, tied=True), "q_proj", "v_proj", "down_proj"),
    "gpt2, LoRA": lambda v: with_lora(gpt2(v), "c_attn", "c_fc"),
    "phi, LoRA with head": lambda v: with_lora(phi(v), "q_proj", "fc1", "lm_head"),
}


@pytest.fixture(params=MODELS, scope="module")
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def exact() -> Iterator[None]:
    """Float64 throughout: no fused attention, and no norm that casts to float32."""
    from transformers.models.gemma3 import modeling_gemma3
    from transformers.models.llama import modeling_llama

    def weight_of(norm: Any) -> torch.Tensor:
        weight: torch.Tensor = norm.weight
        return weight

    def shifted(self: Any, x: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return x * scale * (1 + weight_of(self))

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return weight_of(self) * (x * scale)

    with pytest.MonkeyPatch.context() as patch, sdpa_kernel(SDPBackend.MATH):
        patch.setattr(modeling_llama.LlamaRMSNorm, "forward", forward)
        patch.setattr(modeling_gemma3.Gemma3RMSNorm, "forward", shifted)
        yield


@pytest.fixture
def build(tiny_tokenizer: Any) -> Callable[..., Any]:
    def built(name: str, dtype: torch.dtype = torch.float64) -> Any:
        torch.manual_seed(3)
        model = MODELS[name](len(tiny_tokenizer)).eval()
        for n, p in model.named_parameters():
            if p.requires_grad and ("bias" in n or "norm" in n or "ln_" in n):
                torch.nn.init.normal_(p, mean=float("norm" in n), std=0.3)
        return model.to(dtype)

    return built


@pytest.fixture
def sets(tiny_tokenizer: Any, qa_rows: Any) -> tuple[list[Batch], list[Batch]]:
    """Forget and retain set, each of two ragged batches, the padding token among their prompts."""
    examples = list(encode_rows(qa_rows, tiny_tokenizer, Template()).examples)
    for place in (0, 2, 3):
        text = examples[place].sequences["answer"]
        ids = (text.input_ids[0], 0, *text.input_ids[2:])
        examples[place] = replace(
            examples[place], sequences={"answer": replace(text, input_ids=ids)}
        )
    return (
        [collate(examples[:2], 0), collate(examples[2:3], 0, padding_side="left")],
        [collate(examples[3:6], 1), collate(examples[6:7], 1)],
    )
