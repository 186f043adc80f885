"""Log-probabilities without logits: equal to the plain path, and in less memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import backward
from transformers import LlamaForCausalLM

from amnesis.data.batches import Batch, collate
from amnesis.data.examples import encode_rows
from amnesis.data.templates import Template
from amnesis.scoring.chunked_logps import label_logps_in_chunks
from amnesis.scoring.forward import score
from amnesis.scoring.head import ChunkedHead
from amnesis.scoring.scores import Needs, label_logps

Leaves = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]  # hidden, weight, bias
Compute = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor], torch.Tensor]


def inputs(
    rows: int, vocabulary: int, dtype: torch.dtype, bias: bool = True, width: int = 8
) -> Leaves:
    torch.manual_seed(rows)
    hidden = torch.randn(rows, width).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, width).to(dtype).requires_grad_()
    offset = torch.randn(vocabulary).to(dtype).requires_grad_() if bias else None
    return hidden, weight, offset


def plain(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> torch.Tensor:
    return label_logps(torch.nn.functional.linear(hidden, weight, bias), targets)


def in_chunks(chunk: int) -> Compute:
    return partial(label_logps_in_chunks, chunk=chunk)


def gradients(leaves: Leaves) -> list[torch.Tensor]:
    return [leaf.grad.clone() for leaf in leaves if leaf is not None and leaf.grad is not None]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 40),
    st.integers(2, 30),
    st.integers(1, 50),
    st.booleans(),
    st.sampled_from([(torch.float32, 3e-7), (torch.float64, 1e-13)]),
)
def test_values_and_gradients_are_the_plain_path_s(
    rows: int, vocabulary: int, chunk: int, bias: bool, precision: tuple[torch.dtype, float]
) -> None:
    dtype, tolerance = precision
    targets = torch.randint(vocabulary, (rows,))
    pull = torch.randn(rows, dtype=dtype)
    results = []
    for compute in (plain, in_chunks(chunk)):
        leaves = inputs(rows, vocabulary, dtype, bias)
        logps = compute(*leaves, targets)
        backward(logps, pull)
        results.append([logps.detach(), *gradients(leaves)])
    for expected, found in zip(*results, strict=True):
        scale = max(1.0, expected.abs().max().item() if expected.numel() else 1.0)
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale * 4)


def test_a_larger_case_is_exact_to_3e_7() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(600, 64), torch.randn(4000, 64) / 8
    targets = torch.randint(4000, (600,))
    found = label_logps_in_chunks(hidden, weight, None, targets)
    exact = plain(hidden.double(), weight.double(), None, targets)
    error = (found - exact).abs() / exact.abs()
    assert error.max() < 3e-7


@pytest.mark.parametrize("trained", ["hidden", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient(trained: str) -> None:
    leaves = inputs(20, 7, torch.float64)
    named: dict[str, torch.Tensor] = {}
    for name, leaf in zip(("hidden", "weight", "bias"), leaves, strict=True):
        assert leaf is not None
        named[name] = leaf.requires_grad_(name == trained)
    targets = torch.randint(7, (20,))
    backward(in_chunks(6)(*leaves, targets).sum())
    found = {name: leaf.grad for name, leaf in named.items()}
    assert [name for name, grad in found.items() if grad is not None] == [trained]
    named[trained].grad = None
    backward(plain(*leaves, targets).sum())
    torch.testing.assert_close(found[trained], named[trained].grad)


def test_backward_may_run_twice() -> None:
    leaves = inputs(20, 7, torch.float64)
    logps = in_chunks(6)(*leaves, torch.randint(7, (20,)))
    backward(logps.sum(), retain_graph=True)
    once = gradients(leaves)
    backward(logps.sum())
    for first, second in zip(once, gradients(leaves), strict=True):
        torch.testing.assert_close(second, 2 * first)


def test_half_precision_is_summed_in_float32() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(512, 64).bfloat16().requires_grad_()
    weight = (torch.randn(300, 64) / 8).bfloat16().requires_grad_()
    targets = torch.randint(300, (512,))
    found = label_logps_in_chunks(hidden, weight, None, targets, chunk=32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain(hidden, weight, None, targets), rtol=1e-6, atol=1e-6)
    backward(found.sum())
    half = weight.grad
    assert half is not None
    assert half.dtype == torch.bfloat16
    exact = weight.detach().double().requires_grad_()
    backward(plain(hidden.detach().double(), exact, None, targets).sum())
    assert exact.grad is not None
    # Sixteen partial sums rounded to bfloat16 on the way would be off by several times this.
    torch.testing.assert_close(half.double(), exact.grad, rtol=0.02, atol=0.06)


def test_autocast_is_remembered_in_backward() -> None:
    results = []
    targets = torch.randint(9, (40,))
    for compute in (plain, in_chunks(16)):
        leaves = inputs(40, 9, torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            logps = compute(*leaves, targets)
        assert logps.dtype == torch.float32
        backward(logps.sum())
        results.append([logps.detach(), *gradients(leaves)])
    for expected, found in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.1)


def test_forward_mode_agrees_with_the_plain_path() -> None:
    fwd: Any = torch.autograd.forward_ad
    targets = torch.randint(7, (20,))
    leaves = [leaf.detach() for leaf in inputs(20, 7, torch.float64) if leaf is not None]
    tangents = [torch.randn_like(leaf) for leaf in leaves]
    with fwd.dual_level():
        h, w, b = (fwd.make_dual(leaf, t) for leaf, t in zip(leaves, tangents, strict=True))
        found = fwd.unpack_dual(in_chunks(6)(h, w, b, targets)).tangent
        expected = fwd.unpack_dual(plain(h, w, b, targets)).tangent
    assert found is not None
    torch.testing.assert_close(found, expected)


# ---- in a model's forward pass


class Sine(LlamaForCausalLM):  # type: ignore[misc]  # transformers is not typed
    """Makes logits as no configuration says."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits.sin()
        return output


def model_of(kind: str, vocabulary: int) -> Any:
    import transformers as hf

    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    torch.manual_seed(0)
    if kind == "llama":
        return hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, tie_word_embeddings=False))
    if kind == "llama tied":
        return hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, tie_word_embeddings=True))
    if kind == "gpt_neox":
        return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**sizes))
    if kind == "phi (biased head)":
        return hf.PhiForCausalLM(hf.PhiConfig(**sizes))
    if kind == "gemma2 (soft-capped)":
        return hf.Gemma2ForCausalLM(
            hf.Gemma2Config(**sizes, num_key_value_heads=2, head_dim=8, final_logit_softcapping=2.0)
        )
    if kind == "granite (divided)":
        return hf.GraniteForCausalLM(hf.GraniteConfig(**sizes, logits_scaling=3.0))
    if kind == "of its own":
        return Sine(hf.LlamaConfig(**sizes))
    return hf.CohereForCausalLM(hf.CohereConfig(**sizes, logit_scale=0.25))


def head_in_chunks(model: Any, rows: int) -> ChunkedHead:
    """Return the model's head with chunks of so many rows."""
    weight = model.get_output_embeddings().weight
    return ChunkedHead(model, rows * weight.shape[0] * max(4, weight.element_size()))


def label_count(batch: Batch) -> int:
    return int(batch.mask.sum())


KINDS = {
    "llama": True,
    "llama tied": True,
    "gpt_neox": True,
    "phi (biased head)": True,
    "gemma2 (soft-capped)": True,
    "cohere (multiplied)": True,
    "granite (divided)": True,
    "of its own": False,
}


@pytest.fixture
def batch(qa_rows: Any, tiny_tokenizer: Any) -> Batch:
    return collate(encode_rows(qa_rows, tiny_tokenizer, Template()).examples, pad_token_id=1)


def losses_and_gradients(model: Any, batch: Batch, head: ChunkedHead | None) -> list[torch.Tensor]:
    model.zero_grad()
    logps = score(model, batch, Needs(logps=True), head=head).logps
    backward((logps * torch.arange(logps.numel()).view_as(logps)).mean())
    return [logps.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize(("kind", "served"), KINDS.items())
def test_every_architecture_gives_the_plain_path_s_numbers(
    kind: str, served: bool, batch: Batch, tiny_tokenizer: Any
) -> None:
    model = model_of(kind, len(tiny_tokenizer))
    head = head_in_chunks(model, 16)
    assert head.serves(label_count(batch)) == served
    assert (head.note is None) == served
    if not served:
        assert "the model changes what its head gives" in str(head.note)
    expected = losses_and_gradients(model, batch, None)
    found = losses_and_gradients(model, batch, head)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


def test_no_logits_beyond_a_chunk_are_ever_made(batch: Batch, tiny_tokenizer: Any) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    vocabulary = len(tiny_tokenizer)
    largest = 0

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for t in tree_leaves(out):
                weight = isinstance(t, torch.Tensor) and t.shape == (32, vocabulary)
                if isinstance(t, torch.Tensor) and t.shape[-1:] == (vocabulary,) and not weight:
                    largest = max(largest, t.numel() // vocabulary)
            return out

    model = model_of("llama", vocabulary)
    head = head_in_chunks(model, 8)
    head.serves(label_count(batch))
    watch = Watch()  # type: ignore[no-untyped-call]
    with watch:
        losses_and_gradients(model, batch, head)
    assert largest == 8
    with watch:
        losses_and_gradients(model, batch, None)
    assert largest >= int(batch.mask.sum())


def test_a_batch_within_one_chunk_takes_the_plain_path(tiny_llama: Any, batch: Batch) -> None:
    head = head_in_chunks(tiny_llama, label_count(batch))
    assert not head.serves(label_count(batch))
    assert head.note is None
    for a, b in zip(
        losses_and_gradients(tiny_llama, batch, head),
        losses_and_gradients(tiny_llama, batch, None),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_an_adapter_on_the_head_takes_the_plain_path(tiny_tokenizer: Any, batch: Batch) -> None:
    from peft import LoraConfig, get_peft_model

    base = model_of("llama", len(tiny_tokenizer))
    on_head = get_peft_model(base, LoraConfig(r=2, target_modules=["lm_head", "q_proj"]))
    head = head_in_chunks(on_head, 8)
    assert not head.serves(label_count(batch))
    assert "not a plain linear layer" in str(head.note)
    assert score(on_head, batch, Needs(logps=True), head=head).logps.isfinite().all()


def test_an_adapter_elsewhere_is_served(tiny_tokenizer: Any, batch: Batch) -> None:
    from peft import LoraConfig, get_peft_model

    base = model_of("llama", len(tiny_tokenizer))
    model = get_peft_model(
        base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    head = head_in_chunks(model, 8)
    assert head.serves(label_count(batch))
    for a, b in zip(
        losses_and_gradients(model, batch, head),
        losses_and_gradients(model, batch, None),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


def test_logits_that_somebody_reads_are_still_given(tiny_llama: Any, batch: Batch) -> None:
    head = head_in_chunks(tiny_llama, 8)
    scores = score(tiny_llama, batch, Needs(logps=True, logits=True), head=head)
    assert scores.logits.shape[0] == int(batch.mask.sum())


def test_asking_leaves_the_run_s_random_numbers_alone(tiny_llama: Any, batch: Batch) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    for layer in tiny_llama.model.layers:
        layer.self_attn.attention_dropout = 0.5
    tiny_llama.train()
    assert head_in_chunks(tiny_llama, 8).serves(label_count(batch))
    assert torch.equal(torch.rand(4), expected)


def test_gradient_checkpointing_changes_nothing(tiny_tokenizer: Any, batch: Batch) -> None:
    model = model_of("llama", len(tiny_tokenizer)).train()
    expected = losses_and_gradients(model, batch, None)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    found = losses_and_gradients(model, batch, head_in_chunks(model, 8))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


def test_a_block_that_the_model_lacks_is_said(tiny_llama: Any, batch: Batch) -> None:
    from amnesis.errors import ContractError

    with pytest.raises(ContractError, match="block 7, but the model has blocks 0 to 1"):
        score(tiny_llama, batch, Needs(hidden=frozenset({7})))
