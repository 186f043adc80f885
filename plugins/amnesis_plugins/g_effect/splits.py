"""Which formulation answers which question, and its shares as rows of a table."""

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
from amnesis_plugins.g_effect.sets import Cell, ProbeSet, cells
from amnesis_plugins.g_effect.table import EffectTable, Rows

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from amnesis.data.batches import Batch
    from amnesis.discovery.registry import Registry
    from amnesis.scoring.reference import Reference

Directions = Mapping[str, Direction]
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Split:
    """What a G-effect is split by; ``cell`` is the loss token or the input position."""

    layer: bool
    example: bool
    cell: Cell | None


@dataclass(frozen=True)
class Measurement:
    """What every formulation is given: a model, a stream's set and losses, and where results go."""

    model: PreTrainedModel
    probed: ProbeSet
    losses: Sequence[NamedLoss]
    directions: Directions
    split: Split
    reference: Reference | None
    rows: Rows

    @property
    def needs(self) -> Needs:
        """All that the losses read."""
        return reduce(lambda a, b: a | b, (n.loss.needs for n in self.losses))

    @property
    def counts(self) -> list[Counts]:
        """What each loss's means run over: the whole set."""
        return [n.loss.counts(self.probed.batches) for n in self.losses]

    def known(self, batch: Batch) -> Scores | None:
        """Return the reference's scores of a batch where a loss reads them."""
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
        """Add one batch's shares, ``{sequence: (batch, cells)}``, as they were asked for."""
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
    probed: ProbeSet,
    losses: Sequence[NamedLoss],
    directions: Directions,
    split: Split,
    reference: Reference | None,
    rows: Rows,
    told: Told,
) -> None:
    """Measure each loss by the formulation that answers the question, cheapest first."""
    for likelihood in (True, False):
        own = [n for n in losses if n.likelihood is likelihood]
        if not own:
            continue
        asked = Measurement(model, probed, own, directions, split, reference, rows)
        if split.cell == "token" or (likelihood and split.example and not _by_ghost(split)):
            _by_token(asked, told)
        elif split.example:
            _by_ghost_pass(asked, likelihood, told)
        else:
            _at_hand(asked, told)


def example_effects(
    model: PreTrainedModel,
    probed: ProbeSet,
    loss: StreamLoss,
    directions: Directions,
    reference: Reference | None,
) -> EffectTable:
    """Return one loss's effects by layer and example."""
    rows, named = Rows(), NamedLoss(loss.name, loss)
    split = Split(layer=True, example=True, cell=None)
    measure_split(model, probed, [named], directions, split, reference, rows, _untold)
    return EffectTable(rows.finished(), ("layer", "example"), {named.name: loss.name})


def _untold(done: int, total: int) -> None:
    pass


def _by_ghost(split: Split) -> bool:
    return split.layer or split.cell == "position"


def _by_token(asked: Measurement, told: Told) -> None:
    """One forward-mode pass per set (and layer, if asked), whatever the number of losses."""
    parts, all_counts = _parts(asked), asked.counts
    for index, (batch, rows) in enumerate(_batches(asked)):
        slopes: list[dict[str, Tensor]] = []
        for set_name, direction in asked.directions.items():
            for layer, names in parts.items():
                part = {name: direction[name] for name in names}
                found = measure_tokens(asked.model, batch, part, asked.needs.sequences)
                if not slopes:
                    known = asked.known(batch)
                    slopes = [
                        objective_slopes(n.loss, batch, found.logps, known, counts)
                        for n, counts in zip(asked.losses, all_counts, strict=True)
                    ]
                for named, slope in zip(asked.losses, slopes, strict=True):
                    own = named.loss.needs.sequences
                    shares = {s: slope[s] * d for s, d in found.slopes.items() if s in own}
                    asked.add(named.name, set_name, layer, batch, rows, shares)
        told(index + 1, len(asked.probed.batches))


def _parts(asked: Measurement) -> dict[str | None, list[str]]:
    """Return the parameters of each pass: all at once, or layer by layer."""
    layers, names = layers_of(asked.model), list(next(iter(asked.directions.values())))
    if not asked.split.layer:
        return {None: names}
    return {
        layer: [name for name in names if layers[name] == layer]
        for layer in in_order(layers[name] for name in names)
    }


def _by_ghost_pass(asked: Measurement, every_hook: bool, told: Told) -> None:
    """One forward pass and one backward per loss, which all sets share."""
    directions = list(asked.directions.values())
    bound = [_bound(n, counts) for n, counts in zip(asked.losses, asked.counts, strict=True)]
    for index, (batch, rows) in enumerate(_batches(asked)):
        found = ghost_shares(
            asked.model,
            batch,
            directions,
            bound,
            asked.needs,
            asked.known(batch),
            every_hook=every_hook,
        )
        for named, by_set in zip(asked.losses, found, strict=True):
            for set_name, shares in zip(asked.directions, by_set, strict=True):
                if not asked.split.layer:
                    whole = {s: sum(by.values()) for s, by in shares.items()}
                    asked.add(named.name, set_name, None, batch, rows, whole)  # type: ignore[arg-type]
                    continue
                for layer in in_order(k for by_layer in shares.values() for k in by_layer):
                    own = {s: by[layer] for s, by in shares.items() if layer in by}
                    asked.add(named.name, set_name, layer, batch, rows, own)
        told(index + 1, len(asked.probed.batches))


def _at_hand(asked: Measurement, told: Told) -> None:
    """One backward per loss; the inner products are taken as gradients appear."""
    for index, (named, counts) in enumerate(zip(asked.losses, asked.counts, strict=True)):
        with (
            evaluating(asked.model),
            products_with(asked.model, list(asked.directions.values())) as tally,
        ):
            for batch, _ in _batches(asked):
                known = asked.known(batch)
                value = named.loss(score(asked.model, batch, named.loss.needs, known), counts)
                value.backward()  # type: ignore[no-untyped-call]
        for set_name, by_layer in zip(asked.directions, tally.by_layer(), strict=True):
            if not asked.split.layer:
                asked.rows.add(named.name, set_name, [sum(by_layer.values())])
                continue
            for layer in in_order(by_layer):
                asked.rows.add(named.name, set_name, [by_layer[layer]], layer=layer)
        told(index + 1, len(asked.losses))


def _bound(named: NamedLoss, counts: Counts) -> Callable[[Scores], Tensor]:
    return lambda scores: named.loss(scores, counts)


def _batches(asked: Measurement) -> list[tuple[Batch, tuple[int, ...]]]:
    return list(zip(asked.probed.batches, asked.probed.rows, strict=True))


@dataclass(frozen=True)
class NamedLoss:
    """A loss, the name it is shown by, and the stream (its ``name``) whose data it is a loss of."""

    name: str
    loss: StreamLoss

    @property
    def likelihood(self) -> bool:
        """Whether it is a function of the label tokens' log-probabilities alone."""
        return self.loss.needs.likelihood_only


def named_losses(choices: Sequence[Choice], registry: Registry | None = None) -> list[NamedLoss]:
    """Resolve objectives; a regularizer's data is the retain set, any other's the forget set.

    Raises:
        RecipeError: nothing is asked for, one thing is asked for twice, or a term does not fit.
        PluginError: a name does not resolve.
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
        name = " + ".join(map(_shown, terms))
        if name in {n.name for n in losses}:
            raise RecipeError(f"objectives: {name!r} is named twice")
        losses.append(NamedLoss(name, StreamLoss(stream, terms)))
    return losses


def _is_regularizer(term: TermBase) -> bool:
    return term.registered_kind == "regularizer"


def _shown(weighted: WeightedTerm) -> str:
    term = weighted.term
    given = ", ".join(f"{k}={getattr(term, k)}" for k in sorted(term.model_fields_set))
    weight = "" if weighted.weight == 1 else f"{weighted.weight:g}·"
    return f"{weight}{term.registered_name}" + (f"({given})" if given else "")
