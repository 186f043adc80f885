"""The engine ``transformers``: the library's own ``generate``, or its continuous batching on CUDA.

On CUDA, greedy answers of models that only attend come from ``generate_batch``, which fills a
row's place as soon as it has ended. All else goes through ``generate``, batch by batch. Each sample
is drawn by its prompt's own generator, exactly as the builtin engine draws it. Of the model's own
generation configuration nothing but the ends of an answer has an effect, as with ``builtin``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import (
    ContinuousBatchingConfig,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from amnesis.distributed.shards import has_shards
from amnesis.errors import ModelError
from amnesis_evaluation.inference.engines.choosing import Sampler, check_numbers
from amnesis_evaluation.inference.engines.prompts import (
    Decoding,
    Prompt,
    cut,
    keeps_state,
    left_padded,
)
from amnesis_evaluation.inference.teacher_forcing import bare

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# Layers and attentions for which transformers has a paged cache.
_PAGED_LAYERS = {"full_attention", "sliding_attention"}
_PAGED_ATTENTIONS = {"sdpa", "eager", "flash_attention_2", "flash_attention_3"}


def is_continuous(model: PreTrainedModel, decoding: Decoding) -> bool:
    """Return whether the prompts are continued by continuous batching, all of them at once."""
    config: Any = bare(model).config
    return (
        decoding.temperature == 0
        and next(model.parameters()).device.type == "cuda"
        and hasattr(model, "generate_batch")
        and not keeps_state(model)
        and not has_shards(model)
        and set(getattr(config, "layer_types", None) or ()) <= _PAGED_LAYERS
        and config._attn_implementation in _PAGED_ATTENTIONS
    )


def write(model: PreTrainedModel, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
    """Return the tokens of each prompt's continuation, without the token that ended it.

    Raises:
        ModelError: the model has no ``generate``.
        NonFiniteError: the model's logits are not numbers.
    """
    import torch

    if not hasattr(model, "generate"):
        raise ModelError(
            f"evaluate.engine: a {type(bare(model)).__name__} has no generate; say builtin"
        )
    device = next(model.parameters()).device
    ids, mask = (t.to(device) for t in left_padded(prompts, decoding.pad))
    limits = torch.tensor([prompt.limit for prompt in prompts], device=device)
    chosen = _Greedy() if decoding.temperature == 0 else _Drawn(prompts, decoding.temperature)
    with _without_defaults(model):
        sequences = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=_configuration(prompts, decoding, use_cache=not _hides_cache(model)),
            logits_processor=LogitsProcessorList([chosen]),
            stopping_criteria=StoppingCriteriaList([_Limits(ids.shape[1] + limits)]),
        )
    check_numbers(chosen.broken)
    return [
        cut(sequence[ids.shape[1] :], prompt, decoding.end)
        for prompt, sequence in zip(prompts, sequences.tolist(), strict=True)
    ]


def write_continuously(
    model: PreTrainedModel, prompts: Sequence[Prompt], decoding: Decoding
) -> list[list[int]]:
    """Return the same of greedy decoding, by continuous batching.

    Raises:
        ModelError: transformers returned no answer to a prompt.
        NonFiniteError: the model's logits are not numbers.
    """
    with _without_defaults(model):
        outputs = model.generate_batch(
            [list(prompt.input_ids) for prompt in prompts],
            generation_config=_configuration(prompts, decoding),
            continuous_batching_config=_paging(),
            progress_bar=False,
        )
    answers = list(outputs.values())  # in the prompts' order
    if len(answers) < len(prompts) or any(one.error is not None for one in answers):
        reasons = [str(one.error) for one in answers if one.error is not None]
        raise ModelError(
            f"evaluate.engine: transformers left {len(prompts) - len(answers) + len(reasons)} of "
            f"{len(prompts)} prompts without an answer ({reasons[0] if reasons else 'no reason'}); "
            f"say builtin"
        )
    check_numbers(any(logp != logp for one in answers for logp in one.logprobs))  # NaN
    return [
        cut(answer.generated_tokens, prompt, decoding.end)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _paging() -> ContinuousBatchingConfig:
    return ContinuousBatchingConfig(return_logprobs=True)


def _configuration(
    prompts: Sequence[Prompt], decoding: Decoding, *, use_cache: bool = True
) -> GenerationConfig:
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max(prompt.limit for prompt in prompts),
        eos_token_id=sorted(decoding.end) or None,
        pad_token_id=decoding.pad,
        use_cache=use_cache,
    )


def _hides_cache(model: PreTrainedModel) -> bool:
    """Return whether a model remembers in its own modules, what may be of the batch before."""
    return any(hasattr(module, "_setup_cache") for module in model.modules())


@contextmanager
def _without_defaults(model: PreTrainedModel) -> Iterator[None]:
    """Put a model's own generation configuration aside, which fills what a call leaves open."""
    before = [(one, vars(one).get("generation_config")) for one in {model, bare(model)}]
    for one, _ in before:
        one.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for one, configuration in before:
            if configuration is None:
                del one.generation_config
            else:
                one.generation_config = configuration


class _Limits(StoppingCriteria):  # type: ignore[misc]  # transformers has no types
    """Ends each row at its own length."""

    def __init__(self, lengths: Tensor) -> None:
        self._lengths = lengths

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        return self._lengths <= input_ids.shape[1]


class _Greedy(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
    """Leaves the logits as they are, and remembers on their device whether any was NaN."""

    def __init__(self) -> None:
        self._broken: Tensor | None = None

    @property
    def broken(self) -> bool:
        """Whether any logit was not a number."""
        return self._broken is not None and bool(self._broken)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        broken = scores.isnan().any()
        self._broken = broken if self._broken is None else self._broken | broken
        return scores


class _Drawn(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
    """Leaves no choice but the token that the row's own generator draws."""

    broken = False  # what draws has refused it

    def __init__(self, prompts: Sequence[Prompt], temperature: float) -> None:
        self._sampler, self._rows = Sampler(prompts, temperature), range(len(prompts))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens = self._sampler(scores, self._rows)
        drawn: Tensor = scores.new_full(scores.shape, -float("inf")).scatter(1, tokens[:, None], 0)
        return drawn
