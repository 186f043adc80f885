"""Decides which metric is read from which set, and names what a metric lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from amnesis.contracts import ChosenMetric, DerivedMetric, ReadingMetric, Row
from amnesis.errors import RecipeError, did_you_mean

Sets = Mapping[str, Sequence[Row]]


@dataclass
class Selection:
    """Reading metrics by set, derived metrics, and at most one note of those that were left out."""

    reading: dict[str, dict[str, ReadingMetric]] = field(default_factory=dict)
    derived: list[DerivedMetric] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def read(self, set_name: str, metric: ReadingMetric) -> None:
        """Add a metric of a set, unless one with its key is there already."""
        self.reading.setdefault(set_name, {}).setdefault(metric.key, metric)


def select(sets: Sets, chosen: Sequence[ChosenMetric], *, retrained: bool) -> Selection:
    """Return the metrics to evaluate, by the sets that they are read from.

    ``retrained`` says whether a retrained model's evaluation is available. Optional metrics that
    lack something are left out, all with one note.

    Raises:
        RecipeError: a metric that is not optional lacks a set, a field or the retrained model.
    """
    selection = Selection()
    left_out: dict[str, list[str]] = {}  # by what they lack
    for choice in chosen:
        try:
            _add(selection, sets, choice, retrained)
        except MissingNeedError as error:
            if not choice.optional:
                raise
            left_out.setdefault(error.lack, []).append(error.key)
    if left_out:
        parts = [f"{', '.join(keys)} ({lack})" for lack, keys in left_out.items()]
        selection.notes.append(f"not measured: {'; '.join(parts)}")
    return selection


class MissingNeedError(RecipeError):
    """A metric needs a set, a field or a model that is missing; ``lack`` says so in short."""

    def __init__(self, key: str, need: str, lack: str) -> None:
        super().__init__(f"metric {key!r} needs {need}")
        self.key, self.lack = key, lack


def _add(selection: Selection, sets: Sets, choice: ChosenMetric, retrained: bool) -> None:
    metric, only = choice.metric, choice.set_name
    if only is not None and only not in sets:
        if choice.optional:  # a benchmark's own metrics may be of a set that it has at times
            raise _without_set(f"{only}/{metric.key}", only, sets)
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
    candidates = [name for name in sets if only in (None, name)]
    complete = [name for name in candidates if not _missing_field(sets[name], metric)]
    if not complete:
        field_name = _missing_field(sets[candidates[0]], metric)
        raise MissingNeedError(
            metric.key,
            f"the field {field_name!r} in every row, which "
            f"{'no set has' if only is None else f'the set {only!r} lacks'} "
            f"(sets: {', '.join(sets)}); add the field, or name other metrics",
            f"no field {field_name!r}",
        )
    for name in complete:
        selection.read(name, metric)


def _add_derived(selection: Selection, sets: Sets, metric: DerivedMetric, retrained: bool) -> None:
    for name, parts in metric.parts.items():
        if name not in sets:
            raise _without_set(metric.key, name, sets)
        for part in parts:
            if field_name := _missing_field(sets[name], part):
                raise MissingNeedError(
                    metric.key,
                    f"the field {field_name!r} in every row of the set {name!r}; add it there, or "
                    f"name other metrics",
                    f"no field {field_name!r}",
                )
    if metric.needs_retrained and not retrained:
        raise MissingNeedError(
            metric.key,
            "the results of a model that never saw the forget set; evaluate one on the same "
            "benchmark and give its folder as --retrained (in a recipe, evaluate.retrained)",
            "no results of a retrained model; give them as --retrained, or evaluate.retrained",
        )
    for name, parts in metric.parts.items():
        for part in parts:
            selection.read(name, part)
    selection.derived.append(metric)


def _without_set(key: str, name: str, sets: Sets) -> MissingNeedError:
    need = f"the set {name!r}; the benchmark has {', '.join(sets)}"
    return MissingNeedError(key, need, f"no set {name!r}")


def _missing_field(rows: Sequence[Row], metric: ReadingMetric) -> str | None:
    return next((name for name in metric.texts if not all(row.get(name) for row in rows)), None)
