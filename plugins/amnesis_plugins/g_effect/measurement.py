"""Measure the G-effects of any objectives at one model, with any split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from amnesis.data.templates import AnyTemplate, Row
from amnesis.discovery.resolve import Choice
from amnesis.distributed.shards import inner_product, local, over_shards
from amnesis.errors import RecipeError, did_you_mean
from amnesis.progress import ProgressCallback
from amnesis.scoring.forward import evaluating
from amnesis.scoring.reference import AdapterOff
from amnesis_plugins.g_effect.directions import Direction, risk_gradient
from amnesis_plugins.g_effect.sets import Cell, MeasuredSet, encode_set, token_texts
from amnesis_plugins.g_effect.splits import NamedLoss, Split, measure_split, named_losses
from amnesis_plugins.g_effect.table import EffectTable, Rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.data.batches import Batch
    from amnesis.discovery.registry import Registry
    from amnesis.scoring.reference import Reference
    from amnesis.scoring.scores import Needs, Scores

SPLITS = ("layer", "example", "token", "position")

ITS_OWN_REFERENCE = (
    "no reference was given, so the model is its own: GA, NPO and TNPO then have one gradient "
    "direction and coincide (NPO up to the factor label tokens / examples); give the model before "
    "unlearning as reference to tell them apart"
)
# An effect below this share of ‖∇R‖² is float32 rounding of 0; any other is far above it.
VANISHED = 1e-5
AT_ITS_REFERENCE = (
    "{} has no effect beyond rounding: it vanishes where the model is its own reference; give the "
    "model before unlearning as reference"
)
WITHOUT_ADAPTER = "the reference is the model without its adapter"


def measure(  # long for its documentation
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    forget: Iterable[Row],
    retain: Iterable[Row],
    objectives: Sequence[Choice],
    reference: PreTrainedModel | None = None,
    by: Sequence[str] = ("layer", "example"),
    *,
    template: AnyTemplate | None = None,
    batch_size: int = 8,
    registry: Registry | None = None,
    progress: ProgressCallback | None = None,
) -> EffectTable:
    """Return the table of ``e(L, D) = ⟨∇L, ∇R(D)⟩`` of each objective L on both sets D.

    A descent step of size η along ∇L changes ``R(D) = −mean_i ℓ_i`` by −η·e, so a negative e raises
    the risk. Objectives are losses of the whole forget set; regularizers, which may be named among
    them, are losses of the retain set. Gradients are taken without dropout over the parameters that
    require one, which are those of the adapter in a LoRA model. The model is left as it was.

    ``reference`` is the model before unlearning, for objectives that compare with one; by default
    the model without its adapter, or the model itself. ``by`` holds any of ``layer``, ``example``,
    and ``token`` (the share of each label token, for objectives that are functions of the label
    tokens' log-probabilities) or ``position`` (the share of each input position's activations).
    Source: Wang et al. 2025, arXiv 2502.19301, Definition 1.

    Raises:
        AmnesisError: a name, a row or a split cannot be used, or the share of a part of the model
            cannot be determined.
    """
    losses = named_losses(objectives, registry)
    split = _split(by, losses)
    encode = partial(encode_set, model, tokenizer, template=template, batch_size=batch_size)
    sets = {
        name: encode(name, rows, [n.loss for n in losses if n.loss.name == name])
        for name, rows in (("forget", forget), ("retain", retain))
    }
    chosen_reference, notes = _choose_reference(model, reference, losses)
    risks: dict[str, float] = {}
    directions: dict[str, Direction] = {}
    for place, (name, measured_set) in enumerate(sets.items()):
        _report(progress, "risk gradients", place, 2)
        risk = risk_gradient(model, measured_set.batches)
        risks[name], directions[name] = risk.value, risk.direction
    _report(progress, "risk gradients", 2, 2)
    rows = Rows()
    for stream, measured_set in sets.items():
        stream_losses = [n for n in losses if n.loss.name == stream]
        if stream_losses:
            measure_split(
                model,
                measured_set,
                stream_losses,
                directions,
                split,
                chosen_reference,
                rows,
                partial(_report, progress, f"G-effect of the {stream} set"),
            )
    data = rows.finished()
    vanishing = _vanishing(EffectTable(data, tuple(by)), losses, directions)
    notes += tuple(AT_ITS_REFERENCE.format(name) for name in vanishing)
    return EffectTable(
        data,
        tuple(by),
        {n.name: n.loss.name for n in losses},
        risks,
        {name: tuple(e.index for e in s.examples) for name, s in sets.items()},
        _texts(sets, split, tokenizer),
        notes,
        vanishing,
    )


@dataclass(frozen=True)
class LiveReference:
    """A reference model that is run on every batch, rather than scored in advance."""

    model: PreTrainedModel

    def scores(self, batch: Batch, needs: Needs) -> Scores:
        """Return the scores of a batch, without gradient or dropout."""
        import torch

        from amnesis.scoring.forward import as_own, score

        with torch.no_grad(), evaluating(self.model):
            return score(self.model, batch, as_own(needs))


def _split(by: Sequence[str], losses: Sequence[NamedLoss]) -> Split:
    for name in by:
        if name not in SPLITS:
            raise RecipeError(f"by: there is no split {name!r}; {did_you_mean(name, SPLITS)}")
    if {"token", "position"} <= set(by):
        raise RecipeError(
            "by: loss tokens and input positions are different quantities; ask for one"
        )
    if "token" in by:
        others = [n.name for n in losses if not n.likelihood]
        if others:
            raise RecipeError(
                f"by: {others[0]!r} is not a function of the label tokens' log-probabilities, so "
                f"no loss token has a share in it; ask by layer, example or position"
            )
    cell: Cell | None = "token" if "token" in by else "position" if "position" in by else None
    return Split("layer" in by, "example" in by or cell is not None, cell)


def _choose_reference(
    model: PreTrainedModel, reference: PreTrainedModel | None, losses: Sequence[NamedLoss]
) -> tuple[Reference, tuple[str, ...]]:
    """Return what the reference's scores are taken from, and notes on that choice."""
    if reference is not None:
        return LiveReference(reference), ()
    needs_reference = any(n.loss.needs.reference for n in losses)
    if hasattr(model, "disable_adapter"):
        return AdapterOff(model), (WITHOUT_ADAPTER,) if needs_reference else ()
    return LiveReference(model), (ITS_OWN_REFERENCE,) if needs_reference else ()


def _vanishing(
    table: EffectTable, losses: Sequence[NamedLoss], directions: Mapping[str, Direction]
) -> tuple[str, ...]:
    """Return the names of the losses that vanish because the model is its own reference.

    Likelihood terms are left out: their gradient is not 0 there, and may be tiny for other reasons.
    """
    names = [n.name for n in losses if n.loss.needs.reference and not n.likelihood]
    if not names:
        return ()
    squared_norms = {
        name: sum(
            over_shards(inner_product(local(v), local(v)), v).item() for v in direction.values()
        )
        for name, direction in directions.items()
    }
    totals = table.totals("objective", "set")
    return tuple(
        name
        for name in names
        if all(abs(totals[name, d]) <= VANISHED * square for d, square in squared_norms.items())
    )


def _texts(sets: dict[str, MeasuredSet], split: Split, tokenizer: Any) -> dict[str, Any]:
    if split.cell is None:
        return {}
    return {name: token_texts(s.examples, tokenizer, split.cell) for name, s in sets.items()}


def _report(progress: ProgressCallback | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)
