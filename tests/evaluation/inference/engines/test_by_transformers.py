"""transformers' generate writes what the builtin engine writes, row by row and draw by draw."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.evaluation.inference.test_generation import PROMPTS, SIZES, STATEFUL
from transformers import AutoConfig, AutoModelForCausalLM, ContinuousBatchingConfig

from amnesis.contracts import EvaluationSettings, Subject
from amnesis.data.templates import ChatTemplate, Template
from amnesis.errors import ModelError, NonFiniteError
from amnesis_evaluation.inference.answers import Asked, Form, answers_of
from amnesis_evaluation.inference.engines import by_transformers
from amnesis_evaluation.inference.engines.prompts import Decoding, Prompt
from amnesis_evaluation.inference.generation import generate

HEADS = {"num_attention_heads": 4, "intermediate_size": 32}
GROUPED = {**HEADS, "num_key_value_heads": 2, "head_dim": 8}
ATTENDING: dict[str, dict[str, Any]] = {
    "llama": HEADS,
    "qwen3": GROUPED,
    "gemma3_text": {**GROUPED, "sliding_window": 4},
    "gpt_neox": HEADS,
    "gpt2": {"n_positions": 64, "n_head": 4},
    "bloom": {"n_head": 4},
    "opt": {**HEADS, "ffn_dim": 32, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
}


def new_model(architecture: str, sizes: dict[str, Any]) -> Any:
    """Return a model of random weights so large that no two tokens are almost equally likely."""
    config = AutoConfig.for_model(architecture, **SIZES, **sizes)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "A_log" not in name:
                parameter.normal_(std=0.3)
    return model


@pytest.mark.parametrize("architecture", [*ATTENDING, *STATEFUL])
def test_every_architecture_writes_and_draws_the_same(architecture: str) -> None:
    model = new_model(architecture, {**ATTENDING, **STATEFUL}[architecture])
    # None of what the model itself asks for may have an effect: the builtin engine heeds none.
    own = {"repetition_penalty": 3.0, "top_k": 1, "min_new_tokens": 9, "num_beams": 3}
    model.generation_config.update(**own)
    prompts = [Prompt(p, 8 - k, seed=k % 2, draw=k) for k, p in enumerate(PROMPTS)]
    options: dict[str, Any] = {"pad_token_id": 0, "batch_size": 6}
    free = generate(model, prompts, end=frozenset(), **options)
    assert len(set(map(tuple, free))) == len(free)
    for end in (frozenset[int](), frozenset({free[0][3], free[1][1]})):
        for temperature in (0.0, 1.0):
            both = [
                generate(model, prompts, end=end, temperature=temperature, engine=engine, **options)
                for engine in ("builtin", "transformers")
            ]
            assert both[0] == both[1], (end, temperature)
    assert {name: getattr(model.generation_config, name) for name in own} == own


def test_a_draw_depends_neither_on_the_batch_nor_on_torch_s_generator(exact_llama: Any) -> None:
    prompts = [Prompt(p, 8, seed) for p in PROMPTS[:3] for seed in (0, 1)]
    state = torch.get_rng_state()
    written = [
        generate(
            exact_llama,
            prompts,
            end=frozenset(),
            pad_token_id=1,
            batch_size=size,
            temperature=1.0,
            engine="transformers",
        )
        for size in (1, 4)
    ]
    assert written[0] == written[1]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("adapter", ["peft", "transformers"])
def test_an_adapter_writes_too_and_keeps_its_configuration(tiny_llama: Any, adapter: str) -> None:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, r=4)
    before = tiny_llama.generation_config
    if adapter == "peft":
        model = get_peft_model(tiny_llama, lora)
    else:
        tiny_llama.add_adapter(lora)
        model = tiny_llama
    prompts = [Prompt(p, 6) for p in PROMPTS]
    both = [
        generate(model.eval(), prompts, end=frozenset({3}), pad_token_id=1, engine=engine)
        for engine in ("builtin", "transformers")
    ]
    assert both[0] == both[1]
    assert tiny_llama.generation_config is before
    assert model.generation_config is before


def test_nothing_is_written_without_room_and_nothing_by_a_broken_model(tiny_llama: Any) -> None:
    options: dict[str, Any] = {"end": frozenset(), "pad_token_id": 1, "engine": "transformers"}
    prompts = [Prompt((3, 4), 0), Prompt((5, 6, 7), 2), Prompt((8,), 0)]
    assert [len(tokens) for tokens in generate(tiny_llama, prompts, **options)] == [0, 2, 0]
    assert generate(tiny_llama, prompts[:1], **options) == [[]]
    assert generate(tiny_llama, [], **options) == []
    with torch.no_grad():
        tiny_llama.model.norm.weight[3] = torch.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(NonFiniteError, match="logits are not numbers"):
            generate(tiny_llama, prompts, temperature=temperature, **options)


@pytest.mark.parametrize("chat", [False, True])
def test_answers_to_rows_are_the_same_with_stop_texts_chats_and_caps(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: list[dict[str, Any]], chat: bool
) -> None:
    template: Template = Template()
    if chat:
        tiny_tokenizer.chat_template = (
            "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}<eos>{% endfor %}"
            "{% if add_generation_prompt %}assistant\n{% endif %}"
        )
        template = ChatTemplate()
    subject = Subject(tiny_llama, tiny_tokenizer, template)
    sets, needs = {"forget": qa_rows}, {"forget": Asked(generation=True)}
    forms = {"forget": Form(stop=("e", "a"), max_new_tokens=9)}
    told = []
    for engine in ("builtin", "transformers"):
        settings = EvaluationSettings(engine=engine, length_cap=1.5, batch_size=3)
        answers = answers_of(subject, sets, needs, settings, forms=forms)["forget"].answers
        told.append([answer.generated for answer in answers])
    assert told[0] == told[1]
    assert any(told[0])


def test_continuous_batching_writes_the_same(
    tiny_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is chosen on CUDA alone, and runs here with a small cache: left to itself it takes all."""
    small = ContinuousBatchingConfig(
        return_logprobs=True, page_size=16, num_blocks=24, max_batch_tokens=64
    )
    monkeypatch.setattr(by_transformers, "_paging", lambda: small)
    model = tiny_llama.eval()
    decoding = Decoding(end=frozenset({3, 70}), pad=1)
    assert not by_transformers.is_continuous(model, decoding)
    prompts = [Prompt(p, 7 - k % 3) for k, p in enumerate(PROMPTS)]
    expected = generate(model, prompts, end=decoding.end, pad_token_id=1)
    with torch.no_grad():
        assert by_transformers.write_continuously(model, prompts, decoding) == expected
    assert model.config._attn_implementation == "sdpa"
    monkeypatch.setattr(model, "generate_batch", lambda *_, **__: {}, raising=False)
    with pytest.raises(ModelError, match=r"8 of 8 prompts without an answer.*say builtin"):
        by_transformers.write_continuously(model, prompts, decoding)
