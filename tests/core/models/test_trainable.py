"""Which parameters train, and what is left of a LoRA run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

import amnesis
from amnesis.errors import AmnesisError, RecipeError
from amnesis.models.loading import ModelSettings, load_model
from amnesis.models.trainable import LoraSettings, merged, train_only, with_lora


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    ids = tokenizer("Who wrote The Salt Orchard?", return_tensors="pt").input_ids
    with torch.no_grad():
        said: torch.Tensor = model.eval()(ids).logits
    return said


def widened(model: Any) -> Any:
    """The same architecture wide enough for 4-bit kernels, which take blocks of 64 weights."""
    wide = {"hidden_size": 128, "intermediate_size": 128, "head_dim": 32}
    torch.manual_seed(1)
    return type(model)(type(model.config)(**{**model.config.to_dict(), **wide}))


def test_patterns_choose_what_trains(tiny_llama: Any) -> None:
    train_only(tiny_llama, ["model.layers.1.mlp.down_proj.*", "model.norm.weight"])
    chosen = {name for name, p in tiny_llama.named_parameters() if p.requires_grad}
    assert chosen == {"model.layers.1.mlp.down_proj.weight", "model.norm.weight"}
    with pytest.raises(RecipeError, match="matches no parameter; did you mean"):
        train_only(tiny_llama, ["model.layers.1.mlp.downproj.weight"])


def test_an_unknown_target_module_is_named(tiny_llama: Any) -> None:
    with pytest.raises(RecipeError, match="no module is called 'qproj'; did you mean 'q_proj'"):
        with_lora(tiny_llama, LoraSettings(target_modules=["qproj"]))


@pytest.mark.parametrize("save", ["merged", "adapter", "quantized int8", "quantized nf4"])
def test_a_lora_run_forgets_and_leaves_a_model(
    tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any, tmp_path: Path, save: str
) -> None:
    """Over whole weights and over quantized ones, whose default is the adapter alone."""
    base = tmp_path / "base"
    quantize = save.removeprefix("quantized ") if save.startswith("quantized") else None
    if quantize:
        tiny_llama = widened(tiny_llama)
    tiny_llama.save_pretrained(base)
    tiny_tokenizer.save_pretrained(base)
    lora = {"r": 4, "alpha": 8, "target_modules": ["q_proj", "down_proj"]}
    result = amnesis.run(
        {
            "model": {"path": str(base), "quantize": quantize},
            "objective": "npo",
            "regularizer": "kl",
            "combiner": "sago",
            "probes": ["g_effect"],
            "lora": lora if quantize else {**lora, "save": save},
            "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
            "training": {"steps": 4, "learning_rate": 1e-2, "save_every": 2},
            "evaluate": {"metrics": ["probability"], "bootstrap": 0},
        },
        tmp_path / "out",
        device="cpu",
    )
    losses = [step["forget/loss"] for step in result.results.trajectory]
    assert losses[-1] < losses[0]
    # 8-bit kernels round activations too, and otherwise for another batch.
    near = 1e-2 if quantize else 1e-5
    assert result.results.trajectory[0]["forget/loss"] == pytest.approx(20 * 0.6931472, rel=near)
    from transformers import AutoModelForCausalLM

    if save == "merged":
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    else:
        from peft import AutoPeftModelForCausalLM

        assert not list((tmp_path / "out" / "model").glob("model*.safetensors"))
        loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    assert not torch.allclose(
        logits(loaded, tiny_tokenizer), logits(tiny_llama, tiny_tokenizer), atol=1e-3
    )


@pytest.mark.parametrize(("bits", "near"), [("int8", 0.05), ("nf4", 1e-4)])
def test_gradients_flow_through_quantized_weights(
    tiny_llama: Any, tiny_tokenizer: Any, tmp_path: Path, bits: str, near: float
) -> None:
    """As through dense weights of the same rounded values, also after a pass in eval mode."""
    from bitsandbytes.functional import dequantize_4bit

    widened(tiny_llama).save_pretrained(tmp_path)
    base = load_model(ModelSettings(path=str(tmp_path), quantize=bits), device="cpu")
    dense = load_model(ModelSettings(path=str(tmp_path)), device="cpu")
    for name, module in base.named_modules():
        if hasattr(module.weight if hasattr(module, "weight") else None, "quant_state"):
            values = dequantize_4bit(module.weight.data, module.weight.quant_state)
            dense.get_submodule(name).weight.data.copy_(values)
    logits(base, tiny_tokenizer)  # in eval mode
    ids = tiny_tokenizer("Who wrote The Salt Orchard?", return_tensors="pt").input_ids
    gradients = []
    for model in (base, dense):
        torch.manual_seed(0)
        adapted = with_lora(model, LoraSettings(r=2, target_modules=["q_proj"])).train()
        adapted(ids, labels=ids).loss.backward()
        gradients.append({n: p.grad for n, p in adapted.named_parameters() if "lora_B" in n})
    for name, expected in gradients[1].items():
        error = (gradients[0][name] - expected).norm() / expected.norm()
        assert error < near, name


def test_merging_changes_nothing_that_the_model_says(tiny_llama: Any, tiny_tokenizer: Any) -> None:
    model = with_lora(tiny_llama, LoraSettings(r=4, target_modules=["q_proj", "v_proj"]))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    before = logits(model, tiny_tokenizer)
    assert torch.allclose(logits(merged(model), tiny_tokenizer), before, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lora": {"target_modules": ["mlp"]}}, "'mlp' is a LlamaMLP, which takes no adapter"),
        ({"lora": {"target_modules": ["lm_head"]}}, "the weight of 'lm_head' is tied"),
        ({"lora": {"target_modules": ["embed_tokens"]}}, "the weight of 'embed_tokens' is tied"),
        ({"lora": {"target_modules": []}}, "lora.target_modules: List should have at least 1 item"),
        ({"training": {"precision": "float16"}}, "float16 needs an accelerator"),
        ({"training": {"betas": [0.9, 1.0]}}, "training.betas.1: Input should be less than 1"),
        ({"trainable": ["*.nothing"]}, "trainable: '*.nothing' matches no parameter"),
        ({"lora": {"target_modules": ["qproj"]}}, "did you mean 'q_proj'"),
        ({"lora": {}, "trainable": ["*"]}, "give lora or trainable, not both"),
        ({"model": {"quantize": "nf4"}}, "quantized weights do not train"),
        ({"model": {"quantize": "nf4"}, "lora": {"save": "merged"}}, "would round the update away"),
        ({"model": {"quantize": "nf4"}, "lora": {}}, "model.quantize: nf4 needs bitsandbytes"),
        ({"training": {"reference_copy": "int8"}}, "reference_copy: int8 needs bitsandbytes"),
    ],
)
def test_preflight_knows_the_architecture(
    tiny_llama: Any,
    tiny_tokenizer: Any,
    qa_rows: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
    said: str,
) -> None:
    """And what is installed."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "bitsandbytes" else find_spec(n, *a)
    )
    tiny_llama.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    recipe = {
        "model": {"path": str(tmp_path / "base"), **change.pop("model", {})},
        "objective": "ga",
        "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
        **change,
    }
    with pytest.raises(AmnesisError) as raised:
        amnesis.run(recipe, tmp_path / "out", device="cpu")
    assert said in str(raised.value)
