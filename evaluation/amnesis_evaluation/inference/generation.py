"""Batched generation that stops each row at its end and drops rows that have ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amnesis.progress import ProgressCallback
from amnesis.scoring.forward import evaluating
from amnesis_evaluation.inference.batching import BatchSize, in_batches
from amnesis_evaluation.inference.teacher_forcing import accepts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prompt:
    """Tokens to continue, by at most ``limit`` new ones, and the seed of its samples."""

    input_ids: tuple[int, ...]
    limit: int
    seed: int = 0


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    *,
    end: frozenset[int],
    pad_token_id: int,
    batch_size: BatchSize = 32,
    temperature: float = 0.0,
    progress: ProgressCallback | None = None,
    what: str = "generating",
) -> list[list[int]]:
    """Return the tokens of each prompt's continuation, without the token of ``end`` that ended it.

    Decoding is greedy at temperature 0. Otherwise each prompt draws from a generator of its own, so
    that neither the batch size nor the number of processes changes a sample.
    """
    import torch

    device = next(model.parameters()).device

    def run(batch: Sequence[Prompt]) -> list[list[int]]:
        choose = _greedy if temperature == 0 else _Sampler(batch, temperature)
        return _continue(model, batch, end, pad_token_id, choose)

    with torch.no_grad(), evaluating(model):
        return in_batches(
            prompts,
            run,
            length=lambda prompt: len(prompt.input_ids),
            batch_size=batch_size,
            device=device.type,
            what=what,
            progress=progress,
        )


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids that end an answer: the tokenizer's and the generation configuration's."""
    value = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = value if isinstance(value, list) else [value]
    return frozenset(int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None)


Choose = Callable[["Tensor", Sequence[int]], "Tensor"]


def _continue(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    end: frozenset[int],
    pad: int,
    choose: Choose,
) -> list[list[int]]:
    import torch

    device = next(model.parameters()).device
    continuations: list[list[int]] = [[] for _ in prompts]
    rows = [i for i, prompt in enumerate(prompts) if prompt.limit > 0]
    if not rows:
        return continuations
    ids, mask = (t.to(device) for t in _left_padded([prompts[i].input_ids for i in rows], pad))
    extra: dict[str, Any] = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
    takes_positions = accepts(model, "position_ids")
    cache: Any = None
    while True:
        width = ids.shape[1]
        if takes_positions:
            extra["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -width:]
        output = model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **extra
        )
        cache = output.past_key_values
        tokens = choose(output.logits[:, -1], rows)
        survivors = []
        for place, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if token not in end:
                continuations[row].append(token)
                if len(continuations[row]) < prompts[row].limit:
                    survivors.append(place)
        if not survivors:
            return continuations
        if len(survivors) < len(rows):
            indices = torch.tensor(survivors, device=device)
            cache.batch_select_indices(indices)
            mask, tokens = mask[indices], tokens[indices]
            rows = [rows[place] for place in survivors]
        ids = tokens[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], -1)


def _left_padded(prompts: Sequence[tuple[int, ...]], pad: int) -> tuple[Tensor, Tensor]:
    import torch

    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask


def _greedy(logits: Tensor, rows: Sequence[int]) -> Tensor:
    return logits.argmax(-1)


class _Sampler:
    """Draws each row's token from that row's own generator."""

    def __init__(self, prompts: Sequence[Prompt], temperature: float) -> None:
        import torch

        self._temperature = temperature
        self._generators = [torch.Generator().manual_seed(_seed_of(p)) for p in prompts]

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        import torch

        probabilities = (logits.double() / self._temperature).softmax(-1).cpu()
        tokens = [
            torch.multinomial(distribution, 1, generator=self._generators[row])
            for distribution, row in zip(probabilities, rows, strict=True)
        ]
        return torch.cat(tokens).to(logits.device)


def _seed_of(prompt: Prompt) -> int:
    text = f"{prompt.seed}:{','.join(map(str, prompt.input_ids))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
