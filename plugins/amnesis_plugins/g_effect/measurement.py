"""The G-effect of any objectives at one model, split as asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from amnesis.data.templates import AnyTemplate, Row
from amnesis.discovery.resolve import Choice
from amnesis.distributed.shards import inner_product, local, over_shards
from amnesis.errors import RecipeError, did_you_mean
from amnesis.scoring.forward import evaluating
from amnesis.scoring.reference import AdapterOff
from amnesis_plugins.g_effect.directions import Direction, risk_gradient
from amnesis_plugins.g_effect.sets import Cell, ProbeSet, encoded_for, token_texts
from amnesis_plugins.g_effect.splits import NamedLoss, Split, measure_split, named_losses
from amnesis_plugins.g_effect.table import EffectTable, Rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from amnesis.data.batches import Batch
    from amnesis.discovery.registry import Registry
    from amnesis.scoring.reference import Reference
    from amnesis.scoring.scores import Needs, Scores

SPLITS = ("layer", "example", "token", "position")
Progress = Callable[[str, int, int], None]

ITS_OWN_REFERENCE = (
    "no reference was given, so the model is its own: GA, NPO and TNPO then have one gradient "
    "direction and coincide (NPO up to the factor label tokens / examples); give the model before "
    "unlearning as reference to tell them apart"
)
# Of ‖∇R‖²: above what float32 leaves of a gradient that is 0, far below any that is not.
VANISHED = 1e-5
AT_ITS_REFERENCE = (
    "{} has no effect beyond rounding: it vanishes where the model is its own reference; give the "
    "model before unlearning as reference"
)
WITHOUT_ADAPTER = "the reference is the model without its adapter"


def measure(
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
    progress: Progress | None = None,
) -> EffectTable:
    """Measure ``e(L, D) = ⟨∇L, ∇R(D)⟩`` of each objective on forget and retain set.

    A descent step of size η along L changes ``R(D) = −mean_i ℓ_i`` by −η·e: a negative e raises
    the risk. Objectives are losses of the whole forget set; regularizers, which may be named among
    them, of the retain set. Gradients are over the parameters that require one, so over the adapter
    of a LoRA model, and without dropout. The model is left as it was.

    ``by`` holds any of ``layer``, ``example``, and ``token`` (each label token's own share, for
    objectives that are functions of the label tokens' log-probabilities) or ``position`` (the share
    of each input position's activations). Source: Wang et al. 2025, arXiv 2502.19301, Definition 1.

    Raises:
        AmnesisError: a name, a row or a split cannot be used, or the model has a part whose share
            cannot be told apart.
    """
    losses = named_losses(objectives, registry)
    split = _split(by, losses)
    encode = partial(encoded_for, model, tokenizer, template=template, batch_size=batch_size)
    sets = {
        name: encode(name, rows, [n.loss for n in losses if n.loss.name == name])
        for name, rows in (("forget", forget), ("retain", retain))
    }
    known, notes = _reference(model, reference, losses)
    risks: dict[str, float] = {}
    directions: dict[str, Direction] = {}
    for done, (name, probed) in enumerate(sets.items()):
        _tell(progress, "risk gradients", done, 2)
        found = risk_gradient(model, probed.batches)
        risks[name], directions[name] = found.value, found.direction
    _tell(progress, "risk gradients", 2, 2)
    rows = Rows()
    for stream, probed in sets.items():
        own = [n for n in losses if n.loss.name == stream]
        if own:
            told = partial(_tell, progress, f"G-effect of the {stream} set")
            measure_split(model, probed, own, directions, split, known, rows, told)
    data = rows.finished()
    vanishing = _vanishing(EffectTable(data, tuple(by)), losses, directions)
    notes += tuple(AT_ITS_REFERENCE.format(name) for name in vanishing)
    return EffectTable(
        data,
        tuple(by),
        {n.name: n.loss.name for n in losses},
        risks,
        {name: tuple(e.index for e in probed.examples) for name, probed in sets.items()},
        _texts(sets, split, tokenizer),
        notes,
        vanishing,
    )


@dataclass(frozen=True)
class Live:
    """A reference that is run beside the model."""

    model: PreTrainedModel

    def scores(self, batch: Batch, needs: Needs) -> Scores:
        """Run it, without gradient and without dropout."""
        import torch

        from amnesis.scoring.forward import as_own, score

        with torch.no_grad(), evaluating(self.model):
            return score(self.model, batch, as_own(needs))


def _split(by: Sequence[str], losses: Sequence[NamedLoss]) -> Split:
    for one in by:
        if one not in SPLITS:
            raise RecipeError(f"by: there is no split {one!r}; {did_you_mean(one, SPLITS)}")
    if {"token", "position"} <= set(by):
        raise RecipeError(
            "by: loss tokens and input positions are different quantities; ask for one"
        )
    if "token" in by:
        other = [n.name for n in losses if not n.likelihood]
        if other:
            raise RecipeError(
                f"by: {other[0]!r} is not a function of the label tokens' log-probabilities, so no "
                f"loss token has a share in it; ask by layer, example or position"
            )
    cell: Cell | None = "token" if "token" in by else "position" if "position" in by else None
    return Split("layer" in by, "example" in by or cell is not None, cell)


def _reference(
    model: PreTrainedModel, reference: PreTrainedModel | None, losses: Sequence[NamedLoss]
) -> tuple[Reference, tuple[str, ...]]:
    if reference is not None:
        return Live(reference), ()
    reads = any(n.loss.needs.reference for n in losses)
    if hasattr(model, "disable_adapter"):
        return AdapterOff(model), (WITHOUT_ADAPTER,) if reads else ()
    return Live(model), (ITS_OWN_REFERENCE,) if reads else ()


def _vanishing(
    table: EffectTable, losses: Sequence[NamedLoss], directions: Mapping[str, Direction]
) -> tuple[str, ...]:
    """Name the losses that compare with a reference and found no difference.

    Likelihood terms are left out: their gradient is not 0 there, and may rightly be tiny elsewhere.
    """
    asked = [n.name for n in losses if n.loss.needs.reference and not n.likelihood]
    if not asked:
        return ()
    sizes = {
        name: sum(
            over_shards(inner_product(local(v), local(v)), v).item() for v in direction.values()
        )
        for name, direction in directions.items()
    }
    totals = table.totals("objective", "set")
    return tuple(
        name
        for name in asked
        if all(abs(totals[name, d]) <= VANISHED * size for d, size in sizes.items())
    )


def _texts(sets: dict[str, ProbeSet], split: Split, tokenizer: Any) -> dict[str, Any]:
    if split.cell is None:
        return {}
    return {
        name: token_texts(probed.examples, tokenizer, split.cell) for name, probed in sets.items()
    }


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)
