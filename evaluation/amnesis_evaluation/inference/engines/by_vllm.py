"""The engine ``vllm``: the weights are saved, and vLLM writes in a process of its own.

vLLM asks for other releases of torch and transformers than amnesis does, so it has an environment
of its own: ``AMNESIS_VLLM_PYTHON`` names that environment's Python; without it, this one is tried.
Each call saves the model into a temporary folder (an adapter is merged into a copy of the weights,
on the CPU) and loads it anew, which takes about a minute: it pays where many long answers are
generated. vLLM takes nine tenths of the device's memory that is free. Of several processes each has
a vLLM on its own device.

A sample is drawn by its prompt's own seed, but other numbers than ``builtin`` draws; and it depends
on the batch as far as the logits are rounded by it.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.distributed.shards import has_shards
from amnesis.errors import ModelError
from amnesis.models.trainable import merged
from amnesis_evaluation.inference.engines import vllm_worker
from amnesis_evaluation.inference.engines.choosing import check_numbers
from amnesis_evaluation.inference.engines.prompts import Decoding, Prompt, cut, seed_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PYTHON = "AMNESIS_VLLM_PYTHON"
_SHARE = 0.9  # of the free memory, for vLLM's weights and cache
_TYPES = ("float32", "bfloat16", "float16")
_VERSION = "from importlib.metadata import version; print(version('vllm'))"
# What a launcher tells the processes of a run, which vLLM would take as said to it.
_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the order of the work is then the same every time
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def vllm_version() -> str:
    """Return the version of vLLM that would write.

    Raises:
        ModelError: there is none.
    """
    python = os.environ.get(PYTHON, sys.executable)
    try:
        told = subprocess.run(  # noqa: S603  # the user names the interpreter
            [python, "-c", _VERSION], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        raise ModelError(
            f"evaluate.engine: vllm: {python} has no vLLM; install it into an environment of its "
            f"own (python -m venv vllm && vllm/bin/pip install vllm), and set "
            f"{PYTHON}=vllm/bin/python"
        ) from None
    return told.stdout.strip()


def write(model: PreTrainedModel, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
    """Return the tokens of each prompt's continuation, without the token that ended it.

    Raises:
        ModelError: there is no vLLM, it cannot take this model, or it failed.
        NonFiniteError: the model's logits are not numbers.
    """
    vllm_version()
    dtype = _type_of(model)
    with tempfile.TemporaryDirectory(prefix="amnesis-vllm-") as place:
        folder = Path(place)
        _whole(model).save_pretrained(folder / "model")
        answer = _ask(
            folder,
            {
                "model": str(folder / "model"),
                "dtype": dtype,
                "longest": max(len(prompt.input_ids) + prompt.limit for prompt in prompts),
                "temperature": decoding.temperature,
                "end": sorted(decoding.end),
                "prompts": [
                    {"tokens": prompt.input_ids, "limit": prompt.limit, "seed": seed_of(prompt)}
                    for prompt in prompts
                ],
            },
            model.device,
        )
    check_numbers(answer["broken"] > 0)
    return [
        cut(tokens, prompt, decoding.end)
        for prompt, tokens in zip(prompts, answer["tokens"], strict=True)
    ]


def _type_of(model: PreTrainedModel) -> str:
    name = str(model.dtype).removeprefix("torch.")
    if name not in _TYPES:
        raise ModelError(
            f"evaluate.engine: vllm computes in {', '.join(_TYPES)}, and the model's weights are "
            f"{name}; load it with another model.dtype, or say builtin"
        )
    return name


def _whole(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model, or a copy on the CPU with the adapter merged into its weights.

    Raises:
        ModelError: its weights are sharded or quantized, or its adapter cannot be merged.
    """
    if has_shards(model):
        raise ModelError(
            "evaluate.engine: vllm cannot take a sharded model; evaluate the saved one with "
            "amnesis evaluate, or say builtin"
        )
    if getattr(model, "is_quantized", False):
        raise ModelError("evaluate.engine: vllm cannot take quantized weights; say builtin")
    if not hasattr(model, "peft_config"):
        return model
    if not hasattr(model, "merge_and_unload"):
        raise ModelError(
            "evaluate.engine: vllm takes whole weights, and the model's adapter cannot be merged "
            "into them; say builtin"
        )
    apart = _on_cpu(model)
    is_off = any(getattr(module, "disable_adapters", False) is True for module in model.modules())
    plain: PreTrainedModel = apart.unload() if is_off else merged(apart)
    return plain


def _on_cpu(model: Any) -> Any:
    """Return a copy whose parameters and buffers are on the CPU, whatever the device is full of."""
    from torch.nn import Parameter

    copies: dict[int, Any] = {id(b): b.detach().cpu().clone() for b in model.buffers()}
    copies |= {id(p): Parameter(p.detach().cpu().clone(), False) for p in model.parameters()}
    return copy.deepcopy(model, copies)


def _ask(folder: Path, request: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the worker's answer to a request about the model in a folder.

    Raises:
        ModelError: the worker failed; its last words are told.
    """
    environment, options = _surroundings(device)
    question, answer = folder / "request.json", folder / "answer.json"
    request = {**request, "options": options, "answer": str(answer)}
    question.write_text(json.dumps(request), encoding="utf-8")
    python = environment.get(PYTHON, sys.executable)
    done = subprocess.run(  # noqa: S603  # the user names the interpreter
        [python, str(vllm_worker.__file__), str(question)],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not answer.is_file():
        words = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise ModelError(
            f"evaluate.engine: vllm failed (exit code {done.returncode}): "
            f"{words[-1].strip() if words else 'it said nothing'}; say builtin or transformers"
        )
    answered: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return answered


def _surroundings(device: torch.device) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the environment of the worker, and what vLLM is told of the device."""
    import torch

    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _LAUNCHERS and not name.startswith(("TORCHELASTIC_", "ACCELERATE_"))
    } | _SETTINGS
    if device.type != "cuda":
        return environment, {}
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    index = device.index or 0
    environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index] if visible else str(index)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return environment, {"gpu_memory_utilization": round(_SHARE * free / total, 3)}
