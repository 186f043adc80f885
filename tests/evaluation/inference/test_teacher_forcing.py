"""The batched pass says what a model says of one text at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from amnesis.data.examples import encode_rows
from amnesis.data.templates import Encoded, Template
from amnesis_evaluation.inference.teacher_forcing import read_texts


@pytest.fixture
def texts(qa_rows: list[dict[str, Any]], tiny_tokenizer: Any) -> list[Encoded]:
    rows = [
        {"question": first["question"] + " " * k + "Really?", "answer": second["answer"]}
        for k, first in enumerate(qa_rows)
        for second in qa_rows
    ]
    encoded = encode_rows(rows, tiny_tokenizer, Template(max_length=128))
    return [example.sequences["answer"] for example in encoded.examples]


def naive(model: Any, text: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One text, all logits, formulas written out place by place."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([text.input_ids])).logits[0]
    logps, correct, moments = [], [], []
    for place in range(text.prompt_length, len(text.input_ids)):
        every = torch.log(torch.softmax(logits[place - 1].double(), -1))
        label = text.input_ids[place]
        mean = float((every.exp() * every).sum())
        logps.append(float(every[label]))
        correct.append(int(logits[place - 1].argmax()) == label)
        moments.append((mean, float((every.exp() * (every - mean) ** 2).sum()) ** 0.5))
    return np.array(logps), np.array(correct), np.array(moments)


def compare(model: Any, texts: list[Encoded], tolerance: float, **options: Any) -> None:
    read = read_texts(model, texts, pad_token_id=0, moments=True, **options)
    assert len(read) == len(texts)
    for text, scores in zip(texts, read, strict=True):
        logps, correct, moments = naive(model, text)
        assert scores.logps.shape == (text.label_count,)
        np.testing.assert_allclose(scores.logps, logps, atol=tolerance, rtol=tolerance)
        assert scores.moments is not None
        np.testing.assert_allclose(scores.moments, moments, atol=tolerance, rtol=tolerance)
        assert (scores.correct == correct).all()


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_equals_one_text_at_a_time_in_float32(
    tiny_llama: Any, texts: list[Encoded], batch_size: int, padding_side: str
) -> None:
    compare(tiny_llama.eval(), texts, 1e-5, batch_size=batch_size, padding_side=padding_side)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_equals_one_text_at_a_time_in_float64(
    exact_llama: Any, texts: list[Encoded], batch_size: int, padding_side: str
) -> None:
    compare(exact_llama.eval(), texts, 1e-10, batch_size=batch_size, padding_side=padding_side)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_absolute_positions_are_counted_from_the_text(
    texts: list[Encoded], tiny_tokenizer: Any, padding_side: str
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tiny_tokenizer), n_embd=32, n_layer=2, n_head=4, initializer_range=0.2
        )
    )
    compare(model.eval(), texts[:20], 1e-4, batch_size=7, padding_side=padding_side)


def test_an_adapter_is_read_too(tiny_llama: Any, texts: list[Encoded]) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        tiny_llama, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    )
    compare(model.eval(), texts[:10], 1e-5, batch_size=7, padding_side="left")


def test_equal_texts_are_read_once_and_mode_is_restored(
    tiny_llama: Any, texts: list[Encoded]
) -> None:
    tiny_llama.train()
    tiny_llama.model.layers[0].eval()
    seen: list[int] = []
    handle = tiny_llama.register_forward_pre_hook(
        lambda _, __, given: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    calls: list[tuple[str, int, int]] = []
    read = read_texts(
        tiny_llama,
        [*texts[:5], *texts[:5]],
        pad_token_id=0,
        batch_size=2,
        progress=lambda *told: calls.append(told),
    )
    handle.remove()
    assert sum(seen) == 5
    assert len(read) == 10
    assert (read[0].logps == read[5].logps).all()
    assert tiny_llama.training
    assert not tiny_llama.model.layers[0].training
    assert calls == [
        ("reading answers", 2, 5),
        ("reading answers", 4, 5),
        ("reading answers", 5, 5),
    ]
    assert read[0].moments is None


def test_no_texts_are_no_scores(tiny_llama: Any) -> None:
    assert read_texts(tiny_llama, [], pad_token_id=0) == []
