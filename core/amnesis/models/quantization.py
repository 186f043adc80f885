"""Frozen weights in 8 or 4 bits, by bitsandbytes: a base under an adapter, or a reference."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal

from amnesis.errors import ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Bits = Literal["int8", "nf4"]
_OUTLIER_THRESHOLD = 6.0  # LLM.int8() multiplies larger activations in half precision


def check_quantization(bits: str | None, where: str) -> None:
    """Check that weights can be quantized here; ``where`` is the setting that asks for ``bits``.

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    from importlib.util import find_spec

    if bits is not None and find_spec("bitsandbytes") is None:
        raise ModelError(f"{where}: {bits} needs bitsandbytes: pip install 'amnesis[quantized]'")


def loading_options(bits: Bits, device: torch.device | str) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained`` that load weights in ``bits`` onto a device."""
    import torch
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_8bit=bits == "int8", load_in_4bit=bits == "nf4", bnb_4bit_quant_type="nf4"
    )
    return {"quantization_config": config, "device_map": {"": torch.device(device)}}


def keep_differentiable(model: PreTrainedModel) -> None:
    """Restrict a model's 4-bit modules to kernels that have a backward pass.

    On CPUs with AVX512-BF16, bitsandbytes moves a module that runs in eval mode to a layout whose
    only kernel has no backward pass, and leaves it there. Gradients would then silently lack all
    that flows through the module.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def quantized_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model whose linear modules, except the output head, have 8-bit weights.

    Modules are quantized one by one, so that the dense weights are never in memory twice.
    """
    import torch

    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if type(m) is torch.nn.Linear and m is not head]
    # deepcopy takes what its memo holds for an object instead of copying the object.
    memo: dict[int, Any] = {id(m): _quantize(m) for m in linear}
    return copy.deepcopy(model, memo)


def _quantize(module: torch.nn.Linear) -> torch.nn.Module:
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    quantized: torch.nn.Module = Linear8bitLt(
        module.in_features,
        module.out_features,
        bias=module.bias is not None,
        has_fp16_weights=False,
        threshold=_OUTLIER_THRESHOLD,
        device="meta",
    )
    weight = Int8Params(module.weight.detach().cpu(), requires_grad=False)
    quantized.weight = weight.to(module.weight.device)  # Int8Params quantizes when it is moved
    if module.bias is not None:
        quantized.bias = copy.deepcopy(module.bias)
    return quantized
