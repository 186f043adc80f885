"""Checkpoints of sharded parameters: each rank writes its shards, as safetensors.

Every tensor is stored under its parameter's name, so that a run may go on with another number of
ranks: each of them reads what its own shards are made of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from amnesis.distributed.processes import barrier, world

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

_FOLDER, _GROUPS = "shards", "optimizer_groups.json"
_PLAIN = (bool, int, float, str)
_OF = " of "  # between the name of an optimizer's tensor and its parameter's
_MODEL, _OPTIMIZER, _COMBINER = "model/", "optimizer/", "combiner/"


def write_shards(
    folder: Path, model: nn.Module, optimizer: Optimizer, memory: Mapping[str, Tensor]
) -> None:
    """Write the model, its optimizer's state and a combiner's; every rank must call it.

    ``memory`` is laid over ranks as the parameters are.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    tensors = _weights(model)
    tensors |= {f"{_COMBINER}{name}": tensor for name, tensor in memory.items()}
    for name, p in model.named_parameters():
        for slot, tensor in optimizer.state.get(p, {}).items():
            tensors[f"{_OPTIMIZER}{slot}{_OF}{name}"] = tensor
    place = folder / _FOLDER
    place.mkdir(parents=True, exist_ok=True)
    save(tensors, storage_writer=HuggingFaceStorageWriter(str(place), save_distributed=True))
    if world()[0] == 0:
        groups = [
            {key: value for key, value in group.items() if isinstance(value, _PLAIN)}
            for group in optimizer.param_groups
        ]
        (folder / _GROUPS).write_text(json.dumps(groups), encoding="utf-8")
    barrier()


def read_model(folder: Path, model: nn.Module) -> None:
    """Read this rank's shards of the model, in place."""
    _load(folder, _weights(model))


def read_optimizer(folder: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Read this rank's shards of the optimizer's state, and the settings of its groups."""
    states = _laid_out(folder, _OPTIMIZER, model)
    _load(folder, states)
    parameters = dict(model.named_parameters())
    for key, tensor in states.items():
        slot, _, name = key.removeprefix(_OPTIMIZER).partition(_OF)
        optimizer.state[parameters[name]][slot] = tensor
    groups = json.loads((folder / _GROUPS).read_text(encoding="utf-8"))
    for group, settings in zip(optimizer.param_groups, groups, strict=True):
        group.update(settings)


def read_memory(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """Return this rank's shards of the combiner's state, under the names it was written by."""
    memory = _laid_out(folder, _COMBINER, model)
    _load(folder, memory)
    return {key.removeprefix(_COMBINER): tensor for key, tensor in memory.items()}


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's parameters and buffers, those of several names under the first of them."""
    own = {name for name, _ in model.named_parameters()}
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tensors = model.state_dict()
    return {f"{_MODEL}{name}": t for name, t in tensors.items() if name not in names - own}


def _laid_out(folder: Path, kind: str, model: nn.Module) -> dict[str, Tensor]:
    """Return an empty tensor for each stored one of a kind, laid over ranks as its parameter is."""
    import torch
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    stored = HuggingFaceStorageReader(str(folder / _FOLDER)).read_metadata().state_dict_metadata
    parameters = dict(model.named_parameters())
    tensors: dict[str, Tensor] = {}
    for key, metadata in stored.items():
        if not (key.startswith(kind) and isinstance(metadata, TensorStorageMetadata)):
            continue
        p, dtype = parameters[key.partition(_OF)[2]], metadata.properties.dtype
        if metadata.size == p.shape:
            tensors[key] = torch.zeros_like(p.detach(), dtype=dtype)
        else:  # such as AdamW's count of steps
            tensors[key] = torch.zeros(metadata.size, dtype=dtype)
    return tensors


def _load(folder: Path, tensors: dict[str, Tensor]) -> None:
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    if tensors:
        load(tensors, storage_reader=HuggingFaceStorageReader(str(folder / _FOLDER)))
