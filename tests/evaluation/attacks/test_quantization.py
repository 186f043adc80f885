"""Quantization rounds the model that is in memory, and says by which scheme."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import amnesis
from amnesis.contracts import Benchmark, Evaluation, EvaluationSettings, Subject
from amnesis.data.templates import Template
from amnesis.errors import RecipeError
from amnesis.models.trainable import LoraSettings, merged, with_lora
from amnesis_evaluation.attacks.quantization import Quantization, rounded_to_nearest

QUICK = EvaluationSettings(metrics=("probability",), bootstrap=20)


@pytest.fixture
def subject(tiny_llama: Any, tiny_tokenizer: Any) -> Subject:
    return Subject(tiny_llama, tiny_tokenizer, Template())


@pytest.fixture
def benchmark(rich_rows: list[dict[str, Any]]) -> Any:
    return amnesis.create("benchmark", "own", forget=rich_rows[:4], retain=rich_rows[4:])


@settings(deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 20),
    group=st.none() | st.integers(1, 24),
    bits=st.sampled_from([4, 8]),
    seed=st.integers(0, 99),
)
def test_rounding_is_to_the_nearest_of_a_groups_levels(
    rows: int, columns: int, group: int | None, bits: int, seed: int
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    rounded = rounded_to_nearest(weight, bits, group)
    assert rounded.shape == weight.shape
    size = group or columns
    levels = 2 ** (bits - 1) - 1
    for row in range(rows):
        for start in range(0, columns, size):
            own = weight[row, start : start + size].numpy().astype(np.float64)
            scale = np.abs(own).max() / levels
            grid = scale * np.arange(-levels, levels + 1)
            nearest = grid[np.abs(own[:, None] - grid).argmin(1)]
            found = rounded[row, start : start + size].numpy()
            # Half-way cases may go either way.
            np.testing.assert_allclose(np.abs(found - own), np.abs(nearest - own), atol=1e-5)


def test_zeros_stay_zeros() -> None:
    assert (rounded_to_nearest(torch.zeros(2, 3), 4) == 0).all()


def test_quantisation_rounds_linear_layers_and_not_the_head(
    subject: Subject, benchmark: Any
) -> None:
    plain = benchmark.evaluate(subject, QUICK).values["forget/probability"]
    eight = Quantization(bits=8, backend="nearest").attack(subject, benchmark, QUICK)
    four = Quantization(bits=4, backend="nearest").attack(subject, benchmark, QUICK)
    assert "quantised to 4 bits by nearest" in four.notes
    assert abs(eight.values["forget/probability@8bit-nearest"] - plain) < abs(
        four.values["forget/probability@4bit-nearest"] - plain
    )
    by_hand = copy.deepcopy(subject.model)
    for block in by_hand.model.layers:
        for module in block.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data = rounded_to_nearest(module.weight.data, 4)
    hand = Subject(by_hand, subject.tokenizer, subject.template)
    expected = benchmark.evaluate(hand, QUICK).values
    assert four.values["forget/probability@4bit-nearest"] == pytest.approx(
        expected["forget/probability"]
    )


class Recording(Benchmark):
    """Keeps every model that it is given, and finds nothing."""

    models: list[Any]

    def sets(self) -> dict[str, Any]:
        return {}

    def evaluate(self, subject: Subject, *_: Any, **__: Any) -> Evaluation:
        self.models.append(subject.model)
        return Evaluation()


def test_gpt2s_transposed_layers_are_rounded_by_output(tiny_tokenizer: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tiny_tokenizer), n_embd=16, n_layer=1, n_head=2)
    )
    recording = Recording(models=[])
    subject = Subject(model, tiny_tokenizer, Template())
    Quantization(bits=4, backend="nearest").attack(subject, recording, QUICK)
    (attacked,) = recording.models
    weight = model.transformer.h[0].mlp.c_fc.weight
    rounded = attacked.transformer.h[0].mlp.c_fc.weight
    assert torch.equal(rounded, rounded_to_nearest(weight.T, 4).T)
    assert torch.equal(attacked.lm_head.weight, model.lm_head.weight)


@pytest.fixture
def wide(subject: Subject) -> Subject:
    """The same architecture, wide enough for the libraries' blocks of 64 weights."""
    sizes = {"hidden_size": 128, "intermediate_size": 128, "head_dim": 32}
    model = subject.model
    torch.manual_seed(1)
    made = type(model)(type(model.config)(**{**model.config.to_dict(), **sizes}))
    return replace(subject, model=made)


@pytest.mark.parametrize(
    ("backend", "bits"), [("torchao", 8), ("bitsandbytes", 8), ("bitsandbytes", 4)]
)
def test_a_library_rounds_as_much_as_we_do(
    wide: Subject, benchmark: Any, backend: Any, bits: Any
) -> None:
    """The library itself, on a CPU: near the dense model, and not equal to it."""
    dense = benchmark.evaluate(wide, QUICK).values
    ours = Quantization(bits=bits, backend="nearest").attack(wide, benchmark, QUICK).values
    found = Quantization(bits=bits, backend=backend).attack(wide, benchmark, QUICK)
    assert found.notes[-1] == f"quantised to {bits} bits by {backend}"
    assert next(wide.model.parameters()).dtype is torch.float32
    for name in ("forget/probability", "retain/probability"):
        theirs = found.values[f"{name}@{bits}bit-{backend}"]
        for value in (theirs, ours[f"{name}@{bits}bit-nearest"]):
            assert 0 < abs(math.log(value / dense[name])) < (0.1 if bits == 8 else 1.0)


def test_what_a_library_cannot_hold_is_one_line(
    wide: Subject, benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def refuse(*_: Any, **__: Any) -> None:
        raise ImportError("Requires a kernel that is not here")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(
        RecipeError, match=r"bitsandbytes cannot hold .* in 4 bits on cpu: .* kernel"
    ):
        Quantization(bits=4, backend="bitsandbytes").attack(wide, benchmark, QUICK)


def test_a_library_that_leaves_weights_as_they_were_is_found_out(
    subject: Subject, benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    with pytest.raises(
        RecipeError, match="torchao cannot hold this model in 4 bits on cpu: it leaves every weight"
    ):
        Quantization(bits=4, backend="torchao").attack(subject, benchmark, QUICK)
    # Some of them: the libraries go by a layer's width.
    load = transformers.AutoModelForCausalLM.from_pretrained

    def load_all_but_one(*given: Any, **options: Any) -> Any:
        model = load(*given, **options)
        model.model.layers[1].mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(64, 32))
        return model

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load_all_but_one)
    found = Quantization(backend="torchao").attack(subject, benchmark, QUICK)
    assert found.notes[-2:] == [
        "quantised to 8 bits by torchao",
        "torchao left 1 linear layers as they were, such as model.layers.1.mlp.up_proj",
    ]


def test_what_vllm_cannot_take_is_written_by_the_builtin_engine(
    subject: Subject, benchmark: Any
) -> None:
    answers = EvaluationSettings(
        metrics=("forget/rouge_l",), bootstrap=0, max_new_tokens=3, engine="vllm"
    )
    found = Quantization(backend="torchao").attack(subject, benchmark, answers)
    assert set(found.values) == {"forget/rouge_l@8bit-torchao"}
    assert "answers were generated by the builtin engine: vllm takes whole weights" in found.notes


@pytest.mark.parametrize("backend", ["torchao", "bitsandbytes"])
def test_a_backend_that_is_not_installed_is_one_line(
    subject: Subject, benchmark: Any, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=f"{backend} is not installed"):
        Quantization(backend=backend).attack(subject, benchmark, QUICK)
    assert "by nearest" in Quantization().attack(subject, benchmark, QUICK).notes[-1]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        computed: torch.Tensor = model.eval()(input_ids=torch.arange(3, 40)[None]).logits
    return computed


@pytest.mark.parametrize(
    ("backend", "bits"), [("nearest", 8), ("torchao", 8), ("bitsandbytes", 8), ("bitsandbytes", 4)]
)
def test_an_adapter_is_merged_before_rounding(wide: Subject, backend: Any, bits: Any) -> None:
    attack = Quantization(bits=bits, backend=backend)

    def attacked(model: Any) -> torch.Tensor:
        recording = Recording(models=[])
        attack.attack(replace(wide, model=model), recording, QUICK)
        return logits(recording.models[0])

    base = logits(wide.model)
    adapted = with_lora(wide.model, LoraSettings(r=4, alpha=8))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    dense = logits(adapted)
    near = (0.3 if bits == 8 else 0.7) * (base - dense).norm()
    assert (attacked(adapted) - dense).norm() < near
    assert torch.equal(attacked(adapted), attacked(merged(copy.deepcopy(adapted))))
    assert torch.equal(logits(adapted), dense), "the subject keeps its adapter"
    with adapted.disable_adapter():
        assert (attacked(adapted) - base).norm() < near


def test_an_adapter_that_changes_no_weights_is_refused(subject: Subject, benchmark: Any) -> None:
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    prompted = replace(subject, model=get_peft_model(subject.model, config))
    with pytest.raises(RecipeError, match="adapter cannot be merged into its weights"):
        Quantization().attack(prompted, benchmark, QUICK)


def test_weights_that_are_quantized_already_are_refused(wide: Subject, benchmark: Any) -> None:
    from amnesis.models.quantization import quantized_copy

    held = replace(wide, model=quantized_copy(wide.model))
    with pytest.raises(RecipeError, match="weights are quantized already"):
        Quantization(backend="nearest").attack(held, benchmark, QUICK)


@pytest.mark.parametrize("architecture", ["mixtral", "gpt_oss"])
def test_experts_are_rounded_by_output(architecture: str, tiny_tokenizer: Any) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tiny_tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=4,
    )
    model = AutoModelForCausalLM.from_config(config)
    recording = Recording(models=[])
    Quantization(bits=4, backend="nearest").attack(
        Subject(model, tiny_tokenizer, Template()), recording, QUICK
    )
    (attacked,) = recording.models
    layer, rounded_layer = model.model.layers[0].mlp, attacked.model.layers[0].mlp
    for name, columns in (("gate_up_proj", 16), ("down_proj", 24)):
        weight, rounded = getattr(layer.experts, name), getattr(rounded_layer.experts, name)
        for expert in range(4):
            rows, found = weight[expert], rounded[expert]
            if architecture == "gpt_oss":  # (inputs, outputs)
                rows, found = rows.T, found.T
            assert rows.shape[-1] == columns
            assert torch.equal(found, rounded_to_nearest(rows, 4))
            assert not torch.equal(found, rows)
    for name, parameter in model.named_parameters():
        if "bias" in name or "norm" in name or "router" in name or "mlp.gate" in name:
            assert torch.equal(attacked.get_parameter(name), parameter), name


def test_experts_that_a_library_leaves_are_named(tiny_tokenizer: Any) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    model = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=len(tiny_tokenizer),
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=2,
        )
    )
    subject = Subject(model, tiny_tokenizer, Template())
    notes = Quantization(backend="torchao").attack(subject, Recording(models=[]), QUICK).notes
    assert notes[-1] == (
        "torchao left 2 linear layers as they were, such as model.layers.0.mlp.experts.gate_up_proj"
    )


def test_values_are_named_by_the_scheme(subject: Subject, benchmark: Any) -> None:
    attack = Quantization(bits=4, backend="nearest", group_size=16)
    evaluation = attack.attack(subject, benchmark, QUICK)
    expected = {f"{name}/probability@4bit-nearest-16" for name in ("forget", "retain")}
    assert set(evaluation.values) == set(evaluation.intervals) == expected
    assert {one["metric"] for one in evaluation.examples} == {"probability@4bit-nearest-16"}
