"""The norm of each example's gradient, from one backward pass per example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amnesis.data.batches import collate
from amnesis.data.examples import Example
from amnesis.data.templates import Encoded
from amnesis.distributed.shards import has_shards
from amnesis.errors import ModelError
from amnesis.progress import ProgressCallback
from amnesis.scoring.forward import evaluating, score
from amnesis.scoring.scores import Needs
from amnesis_evaluation.inference.batching import in_batches

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

BLOCK = 1 << 20  # elements that are widened at once


def gradient_norms(
    model: PreTrainedModel,
    texts: Sequence[Encoded],
    *,
    pad_token_id: int,
    progress: ProgressCallback | None = None,
) -> list[float]:
    """Return ``‖∇θ mean_i ℓ_i‖`` over the trainable parameters, for each text in order.

    The ``grad`` of the parameters is left unchanged.

    Raises:
        ModelError: the model is sharded.
    """
    import torch

    if not texts:
        return []
    if has_shards(model):
        raise ModelError(
            "the gradient's norm on a text cannot be taken of a sharded model: evaluate the model "
            "that the run writes, on one process"
        )
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = next(model.parameters()).device

    def run(batch: Sequence[Encoded]) -> list[float]:
        example = collate([Example(0, {}, {"answer": batch[0]})], pad_token_id).to(device)
        scores = score(model, example, Needs(logps=True))
        gradients = torch.autograd.grad(
            scores.logps.sum() / scores.count("tokens"), parameters, allow_unused=True
        )
        squares = [_square_of(g) for g in gradients if g is not None]
        return [float(torch.stack(squares).sum().sqrt())]

    with evaluating(model):
        return in_batches(
            texts,
            run,
            length=lambda text: len(text.input_ids),
            batch_size=1,
            model=model,
            what="gradient norms",
            progress=progress,
        )


def _square_of(gradient: Tensor) -> Tensor:
    """Return ``‖g‖²`` in float64, without a float64 copy of the whole gradient."""
    import torch

    parts = torch.split(gradient.reshape(-1), BLOCK)
    return torch.stack([part.double().square().sum() for part in parts]).sum().cpu()
