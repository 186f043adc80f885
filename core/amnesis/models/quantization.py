"""Weights in 8 or 4 bits, by bitsandbytes: a frozen base under an adapter, a frozen reference."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal

from amnesis.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Bits = Literal["int8", "nf4"]
_OUTLIERS = 6.0  # activations beyond it are multiplied in half precision (LLM.int8())


def check_quantization(asked: str | None, where: str) -> None:
    """See that quantized weights can be had here.

    Raises:
        ModelError: the library for it is not installed.
    """
    from importlib.util import find_spec

    if asked is not None and find_spec("bitsandbytes") is None:
        raise ModelError(f"{where}: {asked} needs bitsandbytes: pip install 'amnesis[quantized]'")


def loading_options(bits: Bits, device: torch.device | str) -> dict[str, Any]:
    """Return what ``from_pretrained`` is told so that it loads weights in ``bits``."""
    import torch
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_8bit=bits == "int8", load_in_4bit=bits == "nf4", bnb_4bit_quant_type="nf4"
    )
    return {"quantization_config": config, "device_map": {"": torch.device(device)}}


def keep_differentiable(model: PreTrainedModel) -> None:
    """Keep 4-bit modules to kernels that have a backward pass.

    On CPUs with AVX512-BF16 one that has run in eval mode goes over to a layout whose only kernel
    has none, and stays there: gradients would lack, silently, all that flows through it.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def quantized_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Copy a model with the weights of its linear modules, the head's excepted, in 8 bits.

    Module by module, so that no second copy of the dense weights is ever there.
    """
    import torch

    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if type(m) is torch.nn.Linear and m is not head]
    known: dict[int, Any] = {id(m): _in_8_bits(m) for m in linear}
    return copy.deepcopy(model, known)  # which takes what is known instead of copying


def _in_8_bits(module: torch.nn.Linear) -> torch.nn.Module:
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    made: torch.nn.Module = Linear8bitLt(
        module.in_features,
        module.out_features,
        bias=module.bias is not None,
        has_fp16_weights=False,
        threshold=_OUTLIERS,
        device="meta",
    )
    weight = Int8Params(module.weight.detach().cpu(), requires_grad=False)
    made.weight = weight.to(module.weight.device)  # the move from main memory is what quantizes
    if module.bias is not None:
        made.bias = copy.deepcopy(module.bias)
    return made
