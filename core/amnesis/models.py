"""Models and tokenizers: loaded from a folder or a hub, or made from a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from amnesis.errors import ModelError
from amnesis.quantized import (
    Bits,
    examine_quantization,
    keep_differentiable,
    loading_options,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

END, PAD = "<|end|>", "<|pad|>"


class ModelSettings(BaseModel):
    """Where a model comes from and how it is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1, description="a local folder or a hub name")
    revision: str | None = Field(None, description="a branch, tag or commit of the hub")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] | None = Field(
        None, description="attention implementation; None: the library's choice"
    )
    quantize: Bits | None = Field(
        None, description="load the weights in 8 or 4 bits (bitsandbytes); only with lora"
    )


class NewModelSettings(BaseModel):
    """A model made from nothing: an architecture, its sizes, and a tokenizer for the texts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str = Field(description="a model type that transformers knows, such as 'llama'")
    config: dict[str, Any] = Field(default_factory=dict, description="its configuration's values")
    vocabulary: int = Field(2048, ge=300, description="tokens of the byte-level BPE to be trained")


def load_tokenizer(
    settings: ModelSettings, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            settings.path, revision=settings.revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # transformers and the hub raise many kinds
        raise ModelError(_said("tokenizer", settings, error)) from error
    return tokenizer


def load_model(
    settings: ModelSettings,
    *,
    device: torch.device | str | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a causal language model from safetensors weights.

    Raises:
        ModelError: the model is not there, not causal, not in safetensors, or cannot be read.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"dtype": settings.dtype, "use_safetensors": True}
    if settings.attention is not None:
        options["attn_implementation"] = settings.attention
    if settings.quantize is not None:
        examine_quantization(settings.quantize, "model.quantize")
        options |= loading_options(settings.quantize, device or default_device())
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            settings.path,
            revision=settings.revision,
            trust_remote_code=trust_remote_code,
            **options,
        )
    except Exception as error:  # transformers and the hub raise many kinds
        raise ModelError(_said("model", settings, error)) from error
    if settings.quantize is not None:
        keep_differentiable(model)
        return model  # which is where it was loaded to
    return model.to(device or default_device())


def default_device() -> str:
    """Give the accelerator if there is one (each rank its own), else the CPU."""
    import torch

    from amnesis.distributed.processes import world

    if world()[1] > 1:
        from accelerate import PartialState

        return str(PartialState().device)
    if torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
        return str(accelerator) if accelerator is not None else "cpu"
    return "cpu"


def new_model(
    settings: NewModelSettings, tokenizer: PreTrainedTokenizerBase, seed: int
) -> PreTrainedModel:
    """Make a model with random weights that depend on nothing but ``seed``.

    Raises:
        ModelError: the architecture or a value of its configuration is unknown.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = {
        **settings.config,
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    try:
        config = AutoConfig.for_model(settings.architecture, **values)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers raises many kinds
        raise ModelError(
            f"a new {settings.architecture!r} model cannot be made: {_first_line(error)}"
        ) from error
    return model


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer: no unknown tokens, and deterministic."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Offsets that leave out the space before a word, so that they tell prompt from answer.
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)


def _said(what: str, settings: ModelSettings, error: Exception) -> str:
    local = Path(settings.path)
    if local.is_dir():
        return f"the {what} in {settings.path} cannot be loaded: {_first_line(error)}"
    return (
        f"the {what} {settings.path!r} is neither a folder here nor could it be had from the hub: "
        f"{_first_line(error)}"
    )


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
