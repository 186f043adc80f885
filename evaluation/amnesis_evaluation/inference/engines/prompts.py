"""What is continued, and which prompts a model can continue together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amnesis_evaluation.inference.teacher_forcing import accepts, bare

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# What a model's forward pass may call what it remembers of earlier tokens.
_MEMORIES = ("past_key_values", "cache_params", "state")


@dataclass(frozen=True)
class Prompt:
    """Tokens to continue, by at most ``limit`` new ones, and which sample it is.

    ``seed`` and ``draw`` together decide a sample: the k-th of one seed is none of another's.
    """

    input_ids: tuple[int, ...]
    limit: int
    seed: int = 0
    draw: int = 0


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How prompts are continued: what ends an answer, what pads, and 0 or a temperature."""

    end: frozenset[int]
    pad: int
    temperature: float = 0.0


def seed_of(prompt: Prompt) -> int:
    """Return the number that a prompt's own generator begins with."""
    text = f"{prompt.seed}:{prompt.draw}:{','.join(map(str, prompt.input_ids))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


def cut(tokens: Sequence[int], prompt: Prompt, end: frozenset[int]) -> list[int]:
    """Return the tokens before the first of ``end``, no more than the prompt's limit."""
    ends = (place for place, token in enumerate(tokens) if token in end)
    return list(tokens[: min(next(ends, len(tokens)), prompt.limit)])


def keeps_state(model: PreTrainedModel) -> bool:
    """Return whether any layer folds earlier tokens into a state, instead of attending to them."""
    kinds = getattr(model.config, "layer_types", None) or ()
    is_hybrid = any("attention" not in kind or "linear" in kind for kind in kinds)
    return is_hybrid or bool(getattr(bare(model), "_is_stateful", False))


def together(prompts: Sequence[Prompt], model: PreTrainedModel) -> list[list[int]]:
    """Return the places of the prompts that a model can continue together."""
    if not keeps_state(model):
        return [list(range(len(prompts)))]
    if memory_of(model) == "state":  # transformers' RWKV mixes the rows of a batch up
        return [[place] for place in range(len(prompts))]
    by_length: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt.input_ids), []).append(place)
    return list(by_length.values())


def memory_of(model: PreTrainedModel) -> str | None:
    """Return what a model's forward pass calls its memory; None where it has none."""
    return next((name for name in _MEMORIES if accepts(model, name)), None)


def left_padded(prompts: Sequence[Prompt], pad: int) -> tuple[Tensor, Tensor]:
    """Return the prompts' tokens and their mask, ``(batch, tokens)`` each."""
    import torch

    width = max(len(prompt.input_ids) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt.input_ids) :] = torch.tensor(prompt.input_ids)
        mask[row, width - len(prompt.input_ids) :] = 1
    return ids, mask
