"""Batched generation writes what the model's own generate writes, row by row."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from amnesis_evaluation.inference.generation import Prompt, end_tokens, generate

PROMPTS = [tuple(range(5, 8 + 3 * k)) for k in range(6)] + [(40, 41), (7,)]


def reference(model: Any, prompt: tuple[int, ...], limit: int, end: frozenset[int]) -> list[int]:
    written: list[int] = []
    for _ in range(limit):
        with torch.no_grad():
            ids = torch.tensor([[*prompt, *written]])
            token = int(model(input_ids=ids).logits[0, -1].argmax())
        if token in end:
            break
        written.append(token)
    return written


def common_token(model: Any) -> int:
    """A token that the model writes, so that rows end at different places."""
    written = [t for p in PROMPTS for t in reference(model, p, 12, frozenset())]
    return max(set(written), key=written.count)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_equals_one_prompt_at_a_time(exact_llama: Any, batch_size: int) -> None:
    model = exact_llama.eval()
    end = frozenset({common_token(model)})
    prompts = [Prompt(p, 12 - k % 3) for k, p in enumerate(PROMPTS)]
    written = generate(model, prompts, end=end, pad_token_id=1, batch_size=batch_size)
    wanted = [reference(model, p.input_ids, p.limit, end) for p in prompts]
    assert written == wanted
    assert len({len(tokens) for tokens in wanted}) > 1, "the rows must end at different places"


def test_equals_transformers_generate(tiny_llama: Any) -> None:
    model = tiny_llama.eval()
    ours = generate(model, [Prompt(PROMPTS[3], 10)], end=frozenset(), pad_token_id=1)
    theirs = model.generate(
        torch.tensor([PROMPTS[3]]),
        attention_mask=torch.ones(1, len(PROMPTS[3]), dtype=torch.long),
        max_new_tokens=10,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=1,
    )
    assert ours[0] == theirs[0, len(PROMPTS[3]) :].tolist()


def test_finished_rows_are_dropped(tiny_llama: Any) -> None:
    widths: list[int] = []
    handle = tiny_llama.register_forward_pre_hook(
        lambda _, __, given: widths.append(len(given["input_ids"])), with_kwargs=True
    )
    prompts = [Prompt(PROMPTS[0], limit) for limit in (1, 2, 2, 5)]
    written = generate(tiny_llama, prompts, end=frozenset(), pad_token_id=1)
    handle.remove()
    assert [len(tokens) for tokens in written] == [1, 2, 2, 5]
    assert widths == [4, 3, 1, 1, 1]


def test_a_prompt_without_room_writes_nothing(tiny_llama: Any) -> None:
    assert generate(tiny_llama, [Prompt((3, 4), 0)], end=frozenset(), pad_token_id=1) == [[]]
    assert generate(tiny_llama, [], end=frozenset(), pad_token_id=1) == []


def test_samples_depend_on_their_seed_and_not_on_the_batch(exact_llama: Any) -> None:
    prompts = [Prompt(p, 8, seed) for p in PROMPTS[:4] for seed in (0, 1)]

    def sampled(batch_size: int) -> list[list[int]]:
        return generate(
            exact_llama,
            prompts,
            end=frozenset(),
            pad_token_id=1,
            batch_size=batch_size,
            temperature=1.0,
        )

    assert sampled(1) == sampled(5)
    assert sampled(8)[0] != sampled(8)[1]


def test_samples_follow_the_models_distribution(exact_llama: Any) -> None:
    model = exact_llama.eval()
    with torch.no_grad():
        expected = (model(input_ids=torch.tensor([PROMPTS[1]])).logits[0, -1] / 0.5).softmax(-1)
    prompts = [Prompt(PROMPTS[1], 1, seed) for seed in range(2000)]
    drawn = generate(
        model, prompts, end=frozenset(), pad_token_id=1, batch_size=500, temperature=0.5
    )
    top = int(expected.argmax())
    share = sum(tokens == [top] for tokens in drawn) / len(drawn)
    assert abs(share - float(expected[top])) < 0.05


def test_the_end_is_the_tokenizers_and_the_configurations(
    tiny_llama: Any, tiny_tokenizer: Any
) -> None:
    tiny_llama.generation_config.eos_token_id = [7, 8]
    assert end_tokens(tiny_llama, tiny_tokenizer) == {7, 8, tiny_tokenizer.eos_token_id}
