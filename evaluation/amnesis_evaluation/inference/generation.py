"""Batched generation that stops at each row's end and drops the rows that have ended."""

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
    """Tokens to go on from, at most ``limit`` of them, and the number that seeds its samples."""

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
    """Return each prompt's continuation, without the token that ended it.

    Greedy at temperature 0. Otherwise each prompt draws from random numbers of its own, so that
    neither the batch size nor the number of processes changes a sample.
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
    """Return the ids that end an answer: the tokenizer's, and those of the generation config."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in (*listed, tokenizer.eos_token_id) if i is not None)


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
    written: list[list[int]] = [[] for _ in prompts]
    rows = [i for i, prompt in enumerate(prompts) if prompt.limit > 0]
    if not rows:
        return written
    ids, mask = (t.to(device) for t in _left_padded([prompts[i].input_ids for i in rows], pad))
    extra: dict[str, Any] = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
    placed = accepts(model, "position_ids")
    cache: Any = None
    while True:
        width = ids.shape[1]
        if placed:
            extra["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -width:]
        output = model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **extra
        )
        cache = output.past_key_values
        chosen = choose(output.logits[:, -1], rows)
        going = []
        for place, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
            if token not in end:
                written[row].append(token)
                if len(written[row]) < prompts[row].limit:
                    going.append(place)
        if not going:
            return written
        if len(going) < len(rows):
            kept = torch.tensor(going, device=device)
            cache.batch_select_indices(kept)
            mask, chosen = mask[kept], chosen[kept]
            rows = [rows[place] for place in going]
        ids = chosen[:, None]
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
        drawn = [
            torch.multinomial(own, 1, generator=self._generators[row])
            for own, row in zip(probabilities, rows, strict=True)
        ]
        return torch.cat(drawn).to(logits.device)


def _seed_of(prompt: Prompt) -> int:
    text = f"{prompt.seed}:{','.join(map(str, prompt.input_ids))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
