"""A digest of all that a model's forward pass depends on, to recognise the model by."""

from __future__ import annotations

import hashlib
import json
import socket
from typing import TYPE_CHECKING, Any

from amnesis.distributed.processes import world
from amnesis.distributed.shards import has_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

# Keys of a configuration that say where a model comes from, not what it computes.
PROVENANCE_KEYS = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"}
# A module's attributes that say how it is trained, loaded or described.
_NO_PART_OF_THE_FORWARD_PASS = {
    "gradient_checkpointing",
    "hf_device_map",
    "model_tags",
    "name_or_path",
    "training",
    "warnings_issued",
}
# An adapter's state, which peft keeps in private attributes behind these properties.
_ADAPTER_STATE = ("active_adapters", "disable_adapters", "merged_adapters")
_BYTES_AT_ONCE = 1 << 26  # of a tensor on an accelerator, on its way through main memory


def fingerprint(model: PreTrainedModel, *, secure: bool = False) -> str:
    """Return a digest of a model's weights, buffers, configuration and modules' settings.

    It covers the names, dtypes, shapes and bytes of all tensors, buffers that are not saved (rotary
    frequencies) included; the attention implementation; and each module's class and its public
    attributes that are numbers, texts or collections of them, among them a LoRA layer's scaling and
    which adapters are active, merged or switched off. Not covered are hooks and attributes of other
    kinds. Training and evaluation mode have the same fingerprint.

    Weights are digested where they are, by XXH3 at the speed of memory, without regard to files:
    that a tensor still holds what a file held cannot be shown, because writing to its ``data``
    leaves no trace in its version. Of several processes every one must call this; the first of each
    node reads the weights for all. Shards are gathered, a tensor at a time: a model has the same
    fingerprint however it is sharded.

    XXH3 tells models apart that nobody made to look alike. ``secure`` takes SHA-256, several times
    slower, by which nobody can make another model with the same fingerprint.
    """
    return _agreed(
        lambda: _digest_of(model, _algorithm(secure)),
        are_shards=has_shards(model),
    )


def _algorithm(secure: bool) -> Callable[..., Any]:
    from xxhash import xxh3_128

    return hashlib.sha256 if secure else xxh3_128


def _digest_of(model: PreTrainedModel, algorithm: Callable[..., Any]) -> str:
    digest = algorithm(_settings_of(model).encode())
    # Tied weights are read once. The tensors are kept, so that none takes another's place.
    digests: dict[Any, tuple[Tensor, bytes]] = {}
    for name, value in _tensors(model):
        if hasattr(value, "full_tensor"):
            whole = value.detach().full_tensor()
            digest.update(f"{name}:{whole.dtype}:{tuple(whole.shape)}".encode())
            digest.update(_bytes_digest(whole, algorithm))
            continue
        for part in _parts(value):
            place = part.device, part.data_ptr(), part.dtype, tuple(part.shape), part.stride()
            if place not in digests:
                digests[place] = part, _bytes_digest(part, algorithm)
            digest.update(f"{name}:{part.dtype}:{tuple(part.shape)}".encode())
            digest.update(digests[place][1])
    return str(digest.hexdigest())


def _bytes_digest(tensor: Tensor, algorithm: Callable[..., Any]) -> bytes:
    import torch

    digest = algorithm()
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    for start in range(0, flat.numel(), _BYTES_AT_ONCE):
        digest.update(flat[start : start + _BYTES_AT_ONCE].cpu().numpy().data)
    return bytes(digest.digest())


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, Any]]:
    state = model.state_dict()
    yield from state.items()
    for name, buffer in model.named_buffers(remove_duplicate=False):
        if name not in state:
            yield name, buffer


def _parts(tensor: Any) -> Iterator[Tensor]:
    """Yield the plain tensors that a tensor consists of; a quantized one has several."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _parts(getattr(tensor, name))
    elif hasattr(tensor, "detach"):
        yield tensor.detach()


def _settings_of(model: PreTrainedModel) -> str:
    """Return the configuration and every module's settings as one text."""
    config = {k: v for k, v in model.config.to_dict().items() if k not in PROVENANCE_KEYS}
    modules = {name: _module_settings(module) for name, module in model.named_modules()}
    attention = str(getattr(model.config, "_attn_implementation", ""))
    return json.dumps([attention, config, modules], sort_keys=True, default=str)


def _module_settings(module: Module) -> list[Any]:
    kind = type(module)
    if hasattr(module, "set_requires_gradient_sync"):  # fully_shard has put its class before it
        kind = kind.__bases__[1]
    values = {
        name: plain
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in _NO_PART_OF_THE_FORWARD_PASS
        for plain in _plain(value)
    }
    state = {name: list(_plain(getattr(module, name, None))) for name in _ADAPTER_STATE}
    return [kind.__module__, kind.__qualname__, values, state]


def _plain(value: Any) -> Iterator[Any]:
    """Yield what a value is to be known by, or nothing if it is no plain value."""
    import torch

    if value is None or isinstance(value, bool | int | float | str | torch.dtype):
        yield repr(value)
    elif isinstance(value, dict):
        yield [[list(_plain(key)), list(_plain(item))] for key, item in value.items()]
    elif isinstance(value, list | tuple):
        yield [list(_plain(item)) for item in value]
    elif isinstance(value, set | frozenset):
        yield sorted(json.dumps(list(_plain(item))) for item in value)


def _agreed(compute: Callable[[], str], *, are_shards: bool) -> str:
    """Return what the first rank of this node computes; of shards, what all compute together."""
    if world()[1] == 1 or are_shards:
        return compute()
    import torch.distributed as dist

    rank, ranks = world()
    nodes = [""] * ranks
    dist.all_gather_object(nodes, socket.gethostname())
    first = nodes.index(nodes[rank])
    values = [""] * ranks
    dist.all_gather_object(values, compute() if rank == first else "")
    return values[first]
