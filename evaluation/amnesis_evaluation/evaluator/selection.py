"""Which metric is read from which set, and what is missing where one cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from amnesis.contracts import ChosenMetric, DerivedMetric, ReadingMetric, Row
from amnesis.errors import AmnesisError, RecipeError, did_you_mean, one_line

Sets = Mapping[str, Sequence[Row]]


@dataclass
class Selection:
    """Reading metrics by set, derived metrics, and one line for each that cannot be had."""

    reading: dict[str, dict[str, ReadingMetric]] = field(default_factory=dict)
    derived: list[DerivedMetric] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def read(self, set_name: str, metric: ReadingMetric) -> None:
        """Ask for a metric of a set; asking twice is asking once."""
        self.reading.setdefault(set_name, {}).setdefault(metric.key, metric)


def select(sets: Sets, chosen: Sequence[ChosenMetric], *, retrained: bool) -> Selection:
    """Return which of the sets that there are each metric is read from.

    What an optional metric lacks is noted, what another lacks is refused.

    Raises:
        RecipeError: a metric needs a set, a field or a model that is not there.
    """
    selection = Selection()
    for one in chosen:
        try:
            _add(selection, sets, one, retrained)
        except MissingNeedError as missing:
            if not one.optional:
                raise
            selection.notes.append(str(missing))
    return selection


class MissingNeedError(RecipeError):
    """A metric needs what is not there."""


def _add(selection: Selection, sets: Sets, chosen: ChosenMetric, retrained: bool) -> None:
    metric, only = chosen.metric, chosen.set_name
    if only is not None and only not in sets:
        raise RecipeError(f"metrics: no set is called {only!r}; {did_you_mean(only, sets)}")
    if isinstance(metric, DerivedMetric):
        if only is not None:
            raise RecipeError(
                f"metric {metric.key!r} is made of several sets; write {metric.key!r} without a set"
            )
        _add_derived(selection, sets, metric, retrained)
    elif isinstance(metric, ReadingMetric):
        _add_reading(selection, sets, metric, only)
    else:
        raise RecipeError(
            f"metrics: {metric.label} is not read from sets; 'amnesis compare' shows metrics of "
            f"change, such as recovery"
        )


def _add_reading(selection: Selection, sets: Sets, metric: ReadingMetric, only: str | None) -> None:
    wanted = [name for name in sets if only in (None, name)]
    able = [name for name in wanted if not _lacking(sets[name], metric)]
    if not able:
        lacking = _lacking(sets[wanted[0]], metric)
        raise MissingNeedError(
            f"metric {metric.key!r} needs the field {lacking!r} in every row, which "
            f"{'no set has' if only is None else f'the set {only!r} lacks'} "
            f"(sets: {', '.join(sets)}); add the field, or leave the metric out"
        )
    for name in able:
        selection.read(name, metric)


def _add_derived(selection: Selection, sets: Sets, metric: DerivedMetric, retrained: bool) -> None:
    for name, parts in metric.parts.items():
        if name not in sets:
            raise MissingNeedError(
                f"metric {metric.key!r} needs the set {name!r}; the benchmark has {', '.join(sets)}"
            )
        for part in parts:
            if lacking := _lacking(sets[name], part):
                raise MissingNeedError(
                    f"metric {metric.key!r} needs the field {lacking!r} in every row of the set "
                    f"{name!r}"
                )
    if metric.needs_retrained and not retrained:
        raise MissingNeedError(
            f"metric {metric.key!r} needs the results of a model that never saw the forget set; "
            f"evaluate one on the same benchmark and give its folder as --retrained (in a recipe, "
            f"evaluate.retrained)"
        )
    for name, parts in metric.parts.items():
        for part in parts:
            selection.read(name, part)
    selection.derived.append(metric)


def _lacking(rows: Sequence[Row], metric: ReadingMetric) -> str | None:
    return next((name for name in metric.texts if not all(row.get(name) for row in rows)), None)


def describe(error: AmnesisError | Exception) -> str:
    """Say in one line what went wrong, with the type where the message alone says little."""
    said = one_line(error)
    return said if isinstance(error, AmnesisError) else f"{type(error).__name__}: {said}"
