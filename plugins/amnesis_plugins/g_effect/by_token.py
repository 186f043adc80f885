"""The G-effect by loss token: d_i = ⟨∇ℓ_i, v⟩ of every label token from one forward-mode pass.

An objective that is a function of the ℓ_i alone has the G-effect Σ_i (∂L/∂ℓ_i)·d_i, so a single
measurement of d serves all such objectives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from amnesis.errors import ModelError
from amnesis.scoring.forward import evaluating, score
from amnesis.scoring.scores import Needs, Scores
from amnesis_plugins.g_effect.directions import check_whole

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from amnesis.contracts.stream import Counts, StreamLoss
    from amnesis.data.batches import Batch
    from amnesis_plugins.g_effect.directions import Direction

BySequence = dict[str, "Tensor"]


@dataclass(frozen=True)
class TokenMeasurement:
    """ℓ_i and d_i = ⟨∇ℓ_i, v⟩ of each of a batch's texts, ``{sequence: (batch, tokens)}``."""

    logps: BySequence
    slopes: BySequence


def measure_tokens(
    model: PreTrainedModel,
    batch: Batch,
    direction: Direction,
    sequences: frozenset[str] = frozenset({"answer"}),
) -> TokenMeasurement:
    """Return ℓ_i of every label token and its derivative along ``direction``, from one pass.

    No graph is built. A ``direction`` that names only some of the parameters restricts d to them.
    Attention runs on the MATH backend, since the fused ones have no forward derivative.

    Raises:
        ModelError: an operation of the model has no forward derivative, or it is sharded.
    """
    check_whole(model, "the G-effect by loss token")
    scorer = _Scorer(model)
    parameters = dict(model.named_parameters())
    with (
        torch.no_grad(),
        evaluating(model),
        sdpa_kernel(SDPBackend.MATH),
        padding_as_in_backward(model),
        forward_ad.dual_level(),
    ):
        duals = {
            f"model.{name}": _dual(parameters[name].detach(), tangent)
            for name, tangent in direction.items()
        }
        try:
            outputs = functional_call(
                scorer, duals, (batch, Needs(logps=True, sequences=sequences))
            )
        except NotImplementedError as error:
            raise ModelError(
                f"the G-effect by loss token needs forward derivatives, but {error}; load the "
                f"model with attn_implementation='sdpa' or 'eager', or ask by layer and example"
            ) from error
        pairs = {name: _primal_and_tangent(logps) for name, logps in outputs.items()}
        return TokenMeasurement(
            {name: logps for name, (logps, _) in pairs.items()},
            {name: slopes for name, (_, slopes) in pairs.items()},
        )


def objective_slopes(
    loss: StreamLoss, batch: Batch, logps: BySequence, reference: Scores | None, counts: Counts
) -> BySequence:
    """Return ∂L/∂ℓ_i for each of the batch's texts, ``{sequence: (batch, tokens)}``.

    ``counts`` are those of the whole set, so that the values of its batches add up to L.
    """
    leaves = {name: values.detach().clone().requires_grad_() for name, values in logps.items()}
    with torch.enable_grad():
        ref_scores = reference if loss.needs.ref_logps else None
        value = loss(_scores(batch, leaves, ref_scores), counts)
        slopes = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaves[name])
        if slope is None
        else slope.masked_fill(~batch.of(name).mask, 0)
        for name, slope in zip(leaves, slopes, strict=True)
    }


@contextmanager
def padding_as_in_backward(model: nn.Module) -> Iterator[None]:
    """Drop the tangent of ``padding_idx`` rows, to which backward gives no gradient either."""

    def drop(module: nn.Embedding, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        padding = inputs[0] == module.padding_idx
        return torch.where(padding.unsqueeze(-1), output.detach(), output)

    handles = [
        module.register_forward_hook(drop)
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Scorer(nn.Module):
    """A module around the model, whose parameters ``functional_call`` can replace for one call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, needs: Needs) -> BySequence:
        scores = score(self.model, batch, needs)
        return {name: scores.of(name).logps for name in needs.sequences}


def _dual(primal: Tensor, tangent: Tensor) -> Tensor:
    dual: Tensor = forward_ad.make_dual(primal, tangent)  # type: ignore[no-untyped-call]
    return dual


def _primal_and_tangent(dual: Tensor) -> tuple[Tensor, Tensor]:
    pair = forward_ad.unpack_dual(dual)  # type: ignore[no-untyped-call]
    return pair.primal, torch.zeros_like(pair.primal) if pair.tangent is None else pair.tangent


def _scores(batch: Batch, logps: Mapping[str, Tensor], reference: Scores | None) -> Scores:
    """Return scores of the batch that hold ``logps`` and the reference's, and nothing else."""

    def scores_of(name: str, **further: Any) -> Scores:
        text = batch.of(name)
        ref_logps = reference.of(name).logps if reference is not None and name in logps else None
        values: dict[str, Any] = {"logps": logps.get(name), "ref_logps": ref_logps}
        return Scores(text.mask, text.positions, labels=text.labels[:, 1:], **values, **further)

    others = {name: scores_of(name) for name in logps if name != "answer"}
    return scores_of("answer", sequences=others)
