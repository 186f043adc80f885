"""Quantisation: does rounding the weights undo what a small update did?"""

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
    """Evaluates a copy whose linear layers' weights are held in 8 or 4 bits; the head is not.

    ``nearest`` rounds each group of a row's weights to the nearest of ``2^bits − 1`` symmetric
    levels and computes with the rounded values. ``torchao`` and ``bitsandbytes`` are those
    libraries' own schemes, through transformers; ``auto`` takes bitsandbytes on an accelerator,
    else torchao in 8 bits, where they are installed, and ``nearest`` otherwise; a note says which.
    Source: Zhang et al. 2024, arXiv 2410.16454 (quantisation restores unlearned knowledge).
    """

    formula: ClassVar[str] = "w ← s·round(w/s), s = max|w|/(2^(bits−1) − 1) over a group"
    source: ClassVar[str] = "Zhang et al. 2024, arXiv 2410.16454"

    bits: Literal[8, 4] = Field(8, description="of each weight")
    backend: Backend = Field("auto", description="what rounds the weights")
    group_size: int | None = Field(
        None, ge=1, description="weights that share a scale (nearest); None: a row"
    )

    def attack(
        self,
        subject: Subject,
        benchmark: Benchmark,
        settings: EvaluationSettings,
        progress: ProgressCallback | None = None,
    ) -> Evaluation:
        """Evaluate a quantised copy by the whole benchmark."""
        backend = self.backend if self.backend != "auto" else self._found(subject)
        if backend == "nearest":
            quantised = copied(subject)
            _round_linear_layers(quantised.model, self.bits, self.group_size)
        else:
            quantised = self._reloaded(subject, backend)
        left = [] if backend == "nearest" else _left_dense(quantised.model)
        # Not every library's weights can be digested into the key of a cache.
        uncached = settings.model_copy(update={"cache": None})
        evaluated = benchmark.evaluate(quantised, uncached, progress)
        evaluated.notes.append(f"quantised to {self.bits} bits by {backend}")
        if left:
            evaluated.notes.append(
                f"{backend} left {len(left)} linear layers as they were, such as {left[0]}"
            )
        return evaluated

    def _found(self, subject: Subject) -> Backend:
        if subject.model.device.type != "cpu" and importlib.util.find_spec("bitsandbytes"):
            return "bitsandbytes"
        if self.bits == 8 and importlib.util.find_spec("torchao"):
            return "torchao"
        return "nearest"

    def _reloaded(self, subject: Subject, backend: Backend) -> Subject:
        """Save the model and load it again through transformers' own quantisation."""
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
        if len(_left_dense(model)) == len(_linear_weights(model)):
            raise RecipeError(
                self._refusal(backend, device, "it leaves every weight as it was, without a word")
            )
        return replace(subject, model=model)

    def _refusal(self, backend: Backend, device: Any, why: str) -> str:
        return (
            f"attack 'quantization': {backend} cannot hold this model in {self.bits} bits on "
            f"{device}: {why}; take backend: nearest"
        )


def _is_dense(weight: Tensor) -> bool:
    import torch

    # The libraries mark a weight by a type of its own, torchao inside of the parameter.
    return type(weight) in (torch.nn.Parameter, torch.Tensor) and type(weight.data) is torch.Tensor


def _linear_weights(model: Any) -> dict[str, Tensor]:
    """Return the weights of the linear modules by name, the head's left out."""
    from torch import nn

    head = model.get_output_embeddings()
    return {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def _left_dense(model: Any) -> list[str]:
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
            # Conv1D (GPT-2) holds its weight transposed: scales belong to output rows in both.
            weight = module.weight.T if not isinstance(module, nn.Linear) else module.weight
            rounded = rounded_to_nearest(weight, bits, group_size)
            module.weight.copy_(rounded if isinstance(module, nn.Linear) else rounded.T)


def rounded_to_nearest(weight: Tensor, bits: int, group_size: int | None = None) -> Tensor:
    """Return ``weight``, ``(rows, columns)``, rounded to ``2^bits − 1`` levels per group of a row."""
    import torch

    rows, columns = weight.shape
    size = columns if group_size is None else min(group_size, columns)
    levels = 2 ** (bits - 1) - 1
    padded = torch.nn.functional.pad(weight.float(), (0, -columns % size))
    groups = padded.view(rows, -1, size)
    scale = groups.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / levels
    rounded: Tensor = ((groups / scale).round() * scale).view(rows, -1)[:, :columns]
    return rounded.to(weight.dtype)
