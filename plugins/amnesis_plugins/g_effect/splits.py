"""Which formulation measures which split, and how its shares become rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING

from amnesis.contracts import TermBase
from amnesis.contracts.stream import Counts, StreamLoss, WeightedTerm
from amnesis.discovery.registry import default_registry
from amnesis.discovery.resolve import Choice, build_stream
from amnesis.errors import RecipeError
from amnesis.scoring.forward import evaluating, score
from amnesis.scoring.scores import Needs, Scores
from amnesis_plugins.g_effect.by_token import measure_tokens, objective_slopes
from amnesis_plugins.g_effect.directions import Direction, products_with
from amnesis_plugins.g_effect.ghost import ghost_shares
from amnesis_plugins.g_effect.layers import in_order, layers_of
from amnesis_plugins.g_effect.sets import Cell, MeasuredSet, cells
from amnesis_plugins.g_effect.table import EffectTable, Rows

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from amnesis.data.batches import Batch
    from amnesis.discovery.registry import Registry
    from amnesis.scoring.reference import Reference

Directions = Mapping[str, Direction]  # {set: ∇R of it}
Progress = Callable[[int, int], None]  # called with the number of parts done, and of all


@dataclass(frozen=True)
class Split:
    """What a G-effect is split by; ``cell`` is the unit within an example, if any."""

    layer: bool
    example: bool
    cell: Cell | None


@dataclass(frozen=True)
class Measurement:
    """What a formulation measures: the losses of one stream, of one kind, on the stream's set.

    Attributes:
        model: the model whose gradients are taken.
        measured_set: the stream's examples.
        losses: losses of this set, all of them measured by the same formulation.
        directions: ∇R of each set.
        split: what the effects are split by.
        reference: what the reference's scores are taken from, or None.
        rows: the rows that the results are added to.
    """

    model: PreTrainedModel
    measured_set: MeasuredSet
    losses: Sequence[NamedLoss]
    directions: Directions
    split: Split
    reference: Reference | None
    rows: Rows

    @property
    def needs(self) -> Needs:
        """The scores that any of the losses reads."""
        return reduce(lambda a, b: a | b, (n.loss.needs for n in self.losses))

    @property
    def counts(self) -> list[Counts]:
        """What each loss's means are divided by: counts over the whole set."""
        return [n.loss.counts(self.measured_set.batches) for n in self.losses]

    def reference_scores(self, batch: Batch) -> Scores | None:
        """Return the reference's scores of a batch, or None where no loss reads them."""
        if self.reference is None or not self.needs.reference:
            return None
        return self.reference.scores(batch, self.needs)

    def add(
        self,
        loss: str,
        set_name: str,
        layer: str | None,
        batch: Batch,
        rows: Sequence[int],
        shares: Mapping[str, Tensor],
    ) -> None:
        """Add one batch's shares, ``{sequence: (batch, cells)}``, by example or by cell.

        ``rows`` are the places of the batch's examples in the set.
        """
        add = partial(self.rows.add, loss, set_name, layer=layer)
        if self.split.cell is None:
            by_example = sum(share.double().sum(-1) for share in shares.values())
            add(by_example.tolist(), examples=rows)  # type: ignore[union-attr]
            return
        for sequence, share in shares.items():
            mask, numbers = cells(batch, sequence, self.split.cell)
            examples = [rows[b] for b in mask.nonzero()[:, 0].tolist()]
            add(share[mask].tolist(), examples=examples, tokens=numbers[mask].tolist())


def measure_split(
    model: PreTrainedModel,
    measured_set: MeasuredSet,
    losses: Sequence[NamedLoss],
    directions: Directions,
    split: Split,
    reference: Reference | None,
    rows: Rows,
    progress: Progress,
) -> None:
    """Add the effects of each loss to ``rows``, by the cheapest formulation that can split them."""
    needs_ghost = split.layer or split.cell == "position"
    for likelihood in (True, False):
        group = [n for n in losses if n.likelihood is likelihood]
        if not group:
            continue
        measurement = Measurement(model, measured_set, group, directions, split, reference, rows)
        if split.cell == "token" or (likelihood and split.example and not needs_ghost):
            _measure_by_token(measurement, progress)
        elif split.example:
            _measure_by_ghost(measurement, likelihood, progress)
        else:
            _measure_by_gradient(measurement, progress)


def example_effects(
    model: PreTrainedModel,
    measured_set: MeasuredSet,
    loss: StreamLoss,
    directions: Directions,
    reference: Reference | None,
) -> EffectTable:
    """Return the effects of one loss on each set of ``directions``, by layer and example."""
    rows, named_loss = Rows(), NamedLoss(loss.name, loss)
    split = Split(layer=True, example=True, cell=None)
    measure_split(
        model, measured_set, [named_loss], directions, split, reference, rows, _ignore_progress
    )
    return EffectTable(rows.finished(), ("layer", "example"), {named_loss.name: loss.name})


def _ignore_progress(done: int, total: int) -> None:
    pass


def _measure_by_token(measurement: Measurement, progress: Progress) -> None:
    """One forward-mode pass per set (and layer, if split by it), however many losses there are."""
    parts, all_counts = _parts(measurement), measurement.counts
    for index, (batch, rows) in enumerate(_batches(measurement)):
        slopes: list[dict[str, Tensor]] = []
        for set_name, direction in measurement.directions.items():
            for layer, names in parts.items():
                part = {name: direction[name] for name in names}
                tokens = measure_tokens(measurement.model, batch, part, measurement.needs.sequences)
                if not slopes:
                    ref_scores = measurement.reference_scores(batch)
                    slopes = [
                        objective_slopes(n.loss, batch, tokens.logps, ref_scores, counts)
                        for n, counts in zip(measurement.losses, all_counts, strict=True)
                    ]
                for named_loss, slope in zip(measurement.losses, slopes, strict=True):
                    sequences = named_loss.loss.needs.sequences
                    shares = {s: slope[s] * d for s, d in tokens.slopes.items() if s in sequences}
                    measurement.add(named_loss.name, set_name, layer, batch, rows, shares)
        progress(index + 1, len(measurement.measured_set.batches))


def _parts(measurement: Measurement) -> dict[str | None, list[str]]:
    """Return the parameter names of each pass by layer; None stands for all layers at once."""
    layers = layers_of(measurement.model)
    names = list(next(iter(measurement.directions.values())))
    if not measurement.split.layer:
        return {None: names}
    return {
        layer: [name for name in names if layers[name] == layer]
        for layer in in_order(layers[name] for name in names)
    }


def _measure_by_ghost(measurement: Measurement, every_hook: bool, progress: Progress) -> None:
    """One forward pass per batch, and one backward per loss, for all sets together."""
    directions = list(measurement.directions.values())
    losses = [
        _with_counts(n, counts)
        for n, counts in zip(measurement.losses, measurement.counts, strict=True)
    ]
    for index, (batch, rows) in enumerate(_batches(measurement)):
        by_loss = ghost_shares(
            measurement.model,
            batch,
            directions,
            losses,
            measurement.needs,
            measurement.reference_scores(batch),
            every_hook=every_hook,
        )
        for named_loss, by_set in zip(measurement.losses, by_loss, strict=True):
            add = partial(measurement.add, named_loss.name)
            for set_name, shares in zip(measurement.directions, by_set, strict=True):
                if not measurement.split.layer:
                    sums = {s: sum(by_layer.values()) for s, by_layer in shares.items()}
                    add(set_name, None, batch, rows, sums)  # type: ignore[arg-type]
                    continue
                for layer in in_order(k for by_layer in shares.values() for k in by_layer):
                    of_layer = {s: by[layer] for s, by in shares.items() if layer in by}
                    add(set_name, layer, batch, rows, of_layer)
        progress(index + 1, len(measurement.measured_set.batches))


def _measure_by_gradient(measurement: Measurement, progress: Progress) -> None:
    """One backward per loss and batch; inner products are taken as gradients are formed."""
    model, directions = measurement.model, measurement.directions
    for index, (named_loss, counts) in enumerate(
        zip(measurement.losses, measurement.counts, strict=True)
    ):
        name, loss = named_loss.name, named_loss.loss
        with evaluating(model), products_with(model, list(directions.values())) as tally:
            for batch, _ in _batches(measurement):
                ref_scores = measurement.reference_scores(batch)
                value = loss(score(model, batch, loss.needs, ref_scores), counts)
                value.backward()  # type: ignore[no-untyped-call]
        for set_name, by_layer in zip(directions, tally.by_layer(), strict=True):
            if not measurement.split.layer:
                measurement.rows.add(name, set_name, [sum(by_layer.values())])
                continue
            for layer in in_order(by_layer):
                measurement.rows.add(name, set_name, [by_layer[layer]], layer=layer)
        progress(index + 1, len(measurement.losses))


def _with_counts(named_loss: NamedLoss, counts: Counts) -> Callable[[Scores], Tensor]:
    return lambda scores: named_loss.loss(scores, counts)


def _batches(measurement: Measurement) -> list[tuple[Batch, tuple[int, ...]]]:
    measured_set = measurement.measured_set
    return list(zip(measured_set.batches, measured_set.rows, strict=True))


@dataclass(frozen=True)
class NamedLoss:
    """A loss of the set of its stream, ``loss.name``, and the name that it is shown by."""

    name: str
    loss: StreamLoss

    @property
    def likelihood(self) -> bool:
        """Whether the loss is a function of the label tokens' log-probabilities alone."""
        return self.loss.needs.likelihood_only


def named_losses(choices: Sequence[Choice], registry: Registry | None = None) -> list[NamedLoss]:
    """Return the losses that ``choices`` name, each under a name with its hyper-parameters.

    A regularizer is a loss of the retain set, and an objective one of the forget set.

    Raises:
        RecipeError: there are no choices, two are the same, one mixes objectives and regularizers,
            or a hyper-parameter does not fit.
        PluginError: a name is not registered.
    """
    if isinstance(choices, str) or not choices:
        raise RecipeError("objectives: give a list of at least one objective")
    names = registry or default_registry()
    losses: list[NamedLoss] = []
    for choice in choices:
        terms = build_stream("forget", "objective", choice, names).terms
        kinds = {_is_regularizer(t.term) for t in terms}
        if len(kinds) > 1:
            raise RecipeError(
                "objectives: an objective and a regularizer are losses of different sets; "
                "name them apart"
            )
        stream = "retain" if kinds == {True} else "forget"
        name = " + ".join(map(_label, terms))
        if name in {n.name for n in losses}:
            raise RecipeError(f"objectives: {name!r} is named twice")
        losses.append(NamedLoss(name, StreamLoss(stream, terms)))
    return losses


def _is_regularizer(term: TermBase) -> bool:
    return term.registered_kind == "regularizer"


def _label(weighted_term: WeightedTerm) -> str:
    """Return a term's weight, name and those of its hyper-parameters that were set."""
    term = weighted_term.term
    settings = ", ".join(f"{k}={getattr(term, k)}" for k in sorted(term.model_fields_set))
    weight = "" if weighted_term.weight == 1 else f"{weighted_term.weight:g}·"
    return f"{weight}{term.registered_name}" + (f"({settings})" if settings else "")
