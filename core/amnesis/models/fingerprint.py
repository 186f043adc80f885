"""A digest of all that a model's forward pass depends on, to recognise the model by."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

# Keys of a configuration that say where a model comes from, not what it computes.
PROVENANCE_KEYS = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}


def fingerprint(model: PreTrainedModel) -> str:
    """Return a digest of a model's weights, configuration and attention implementation.

    It covers the names, dtypes, shapes and bytes of all weights, so that a model of which one
    weight changed has another.
    """
    import torch

    digest = hashlib.blake2b(digest_size=16)
    digest.update(str(getattr(model.config, "_attn_implementation", "")).encode())
    values = {k: v for k, v in model.config.to_dict().items() if k not in PROVENANCE_KEYS}
    digest.update(json.dumps(values, sort_keys=True, default=str).encode())
    for name, tensor in model.state_dict().items():
        for part in _parts(tensor):
            digest.update(f"{name}:{part.dtype}:{tuple(part.shape)}".encode())
            digest.update(part.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _parts(tensor: Any) -> Iterator[Tensor]:
    """Yield the plain tensors that a tensor consists of; a quantized one has several."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _parts(getattr(tensor, name))
    elif hasattr(tensor, "detach"):
        yield tensor.detach()
