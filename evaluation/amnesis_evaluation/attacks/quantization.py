"""Quantization: does rounding the weights undo a small update?"""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from amnesis.contracts import Attack, Benchmark, Evaluation, EvaluationSettings, Subject
from amnesis.errors import RecipeError, one_line
from amnesis.progress import ProgressCallback
from amnesis_evaluation.attacks.attacking import copied

if TYPE_CHECKING:
    from torch import Tensor

Backend = Literal["auto", "nearest", "torchao", "bitsandbytes"]


class Quantization(Attack):
    """Evaluates a copy whose linear layers hold weights of 8 or 4 bits; the head keeps its own.

    ``nearest`` rounds each group of a row's weights to the nearest of ``2^bits − 1`` symmetric
    levels and computes with the rounded values. ``torchao`` and ``bitsandbytes`` use those
    libraries' own schemes, through transformers. ``auto`` takes bitsandbytes on an accelerator,
    else torchao for 8 bits, where they are installed, and ``nearest`` otherwise; a note says which.
    Source: Zhang et al. 2024, arXiv 2410.16454 (quantization restores unlearned knowledge).
    """

    formula: ClassVar[str] = "w ← s·round(w/s), s = max|w|/(2^(bits−1) − 1) over a group"
    source: ClassVar[str] = "Zhang et al. 2024, arXiv 2410.16454"

    bits: Literal[8, 4] = Field(8, description="bits per weight")
    backend: Backend = Field("auto", description="the implementation that rounds the weights")
    group_size: int | None = Field(
        None, ge=1, description="weights that share a scale (nearest); None: a whole row"
    )

    def attack(
        self,
        subject: Subject,
        benchmark: Benchmark,
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
    ) -> Evaluation:
        """Evaluate a quantized copy with the whole benchmark.

        Raises:
            RecipeError: the backend is not installed, or cannot hold this model.
        """
        backend = self.backend if self.backend != "auto" else self._best_backend(subject)
        if backend == "nearest":
            quantized_copy = copied(subject)
            _round_linear_layers(quantized_copy.model, self.bits, self.group_size)
        else:
            quantized_copy = self._reload(subject, backend)
        dense = [] if backend == "nearest" else _dense_layers(quantized_copy.model)
        # Not every library's weights can be digested into a cache key.
        settings = settings.model_copy(update={"cache": None})
        evaluation = benchmark.evaluate(quantized_copy, settings, progress)
        evaluation.notes.append(f"quantised to {self.bits} bits by {backend}")
        if dense:
            evaluation.notes.append(
                f"{backend} left {len(dense)} linear layers as they were, such as {dense[0]}"
            )
        return evaluation

    def _best_backend(self, subject: Subject) -> Backend:
        if subject.model.device.type != "cpu" and importlib.util.find_spec("bitsandbytes"):
            return "bitsandbytes"
        if self.bits == 8 and importlib.util.find_spec("torchao"):
            return "torchao"
        return "nearest"

    def _reload(self, subject: Subject, backend: Backend) -> Subject:
        """Save the model and reload it through transformers' own quantization."""
        from transformers import AutoModelForCausalLM

        if importlib.util.find_spec(backend) is None:
            raise RecipeError(
                f"attack 'quantization': {backend} is not installed; install it, or take "
                f"backend: nearest"
            )
        device = subject.model.device
        with tempfile.TemporaryDirectory() as folder:
            subject.model.save_pretrained(folder)
            try:
                model = AutoModelForCausalLM.from_pretrained(
                    folder,
                    dtype=subject.model.dtype,
                    device_map={"": str(device)},
                    quantization_config=_configuration(backend, self.bits),
                )
            except Exception as error:  # the libraries raise many kinds
                raise RecipeError(self._refusal(backend, device, one_line(error))) from error
        if len(_dense_layers(model)) == len(_linear_weights(model)):
            raise RecipeError(
                self._refusal(backend, device, "it leaves every weight as it was, without a word")
            )
        return replace(subject, model=model)

    def _refusal(self, backend: Backend, device: Any, reason: str) -> str:
        return (
            f"attack 'quantization': {backend} cannot hold this model in {self.bits} bits on "
            f"{device}: {reason}; take backend: nearest"
        )


def _is_dense(weight: Tensor) -> bool:
    import torch

    # A library marks a weight it holds by a type of its own; torchao does so inside the parameter.
    return type(weight) in (torch.nn.Parameter, torch.Tensor) and type(weight.data) is torch.Tensor


def _linear_weights(model: Any) -> dict[str, Tensor]:
    """Return the weights of the linear modules, except the output head, by module name."""
    from torch import nn

    head = model.get_output_embeddings()
    return {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def _dense_layers(model: Any) -> list[str]:
    return [name for name, weight in _linear_weights(model).items() if _is_dense(weight)]


def _configuration(backend: Backend, bits: int) -> Any:
    if backend == "bitsandbytes":
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4)
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig() if bits == 8 else Int4WeightOnlyConfig())


def _round_linear_layers(model: Any, bits: int, group_size: int | None) -> None:
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    with torch.no_grad():
        for module in model.modules():
            if module is head or not isinstance(module, (nn.Linear, Conv1D)):
                continue
            # Conv1D (GPT-2) holds its weight transposed; a scale belongs to an output row in both.
            weight = module.weight.T if not isinstance(module, nn.Linear) else module.weight
            values = rounded_to_nearest(weight, bits, group_size)
            module.weight.copy_(values if isinstance(module, nn.Linear) else values.T)


def rounded_to_nearest(weight: Tensor, bits: int, group_size: int | None = None) -> Tensor:
    """Return ``weight`` rounded to ``2^bits − 1`` levels per group of a row.

    The result has the shape ``(rows, columns)`` and the type of ``weight``. A group has
    ``group_size`` columns; None: the whole row.
    """
    import torch

    rows, columns = weight.shape
    size = columns if group_size is None else min(group_size, columns)
    levels = 2 ** (bits - 1) - 1
    padding = (0, -columns % size)
    groups = torch.nn.functional.pad(weight.float(), padding).view(rows, -1, size)
    scale = groups.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / levels
    values: Tensor = ((groups / scale).round() * scale).view(rows, -1)[:, :columns]
    return values.to(weight.dtype)
