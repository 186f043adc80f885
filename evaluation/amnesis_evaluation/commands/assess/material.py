"""What is assessed: the sets, how their rows become prompts, and how a recipe would name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.data.sources import Source
from amnesis.data.templates import Template
from amnesis.discovery.resolve import build
from amnesis.errors import DataError, RecipeError
from amnesis_evaluation.commands import inputs
from amnesis_evaluation.commands.assess.corpus import TEMPLATE

if TYPE_CHECKING:
    from amnesis.contracts import Row, Subject
    from amnesis.discovery.registry import Registry
    from amnesis.runs.recipe import PartialRecipe


@dataclass(frozen=True, kw_only=True)
class Material:
    """The sets ``forget`` and, where there are any, ``retain`` and ``holdout``.

    ``document`` is the part of a recipe that names them; None where none can.
    """

    sets: Mapping[str, Sequence[Row]]
    document: Mapping[str, Any] | None


def material_of(
    forget: Sequence[str] | None,
    retain: Sequence[str] | None,
    holdout: Sequence[str] | None,
    benchmark: str | None,
    limit: int | None,
    registry: Registry,
    recipe: PartialRecipe | None,
) -> Material:
    """Return the first ``limit`` rows of each set: from files, a benchmark, or the model's run.

    Raises:
        RecipeError: nothing says what must go, or something is said twice over.
        DataError: a file cannot be read, or holds nothing.
    """
    inputs.check_one_place(forget, retain or holdout, benchmark)
    known = recipe.benchmark if recipe is not None else None
    if not (forget or benchmark or known):
        raise RecipeError(
            "name what must go: --forget FILE or --benchmark NAME; or find it, with --corpus FILE"
        )
    suite = benchmark or (known if not forget else None)
    if suite is None:
        sources = {"forget": forget, "retain": retain, "holdout": holdout}
        sets = {name: _rows(texts)[:limit] for name, texts in sources.items() if texts}
        return Material(sets=_checked(sets), document=_own(sources))
    sets = inputs.sets_of(forget, retain, benchmark, limit, registry, recipe)
    choice: Any = inputs.choice_of(benchmark, "benchmark") if benchmark else known
    if holdout:
        sets["holdout"] = _rows(holdout)[:limit]
    elif rows := build("benchmark", choice, registry).sets().get("holdout"):
        sets["holdout"] = list(rows)[:limit]
    streams = {} if recipe is None or benchmark else recipe.model_extra or {}
    document = {"benchmark": choice}
    document |= {name: streams[name] for name in ("forget", "retain") if name in streams}
    return Material(sets=_checked(sets), document=None if retain else document)


def fitting(subject: Subject, sets: Mapping[str, Sequence[Row]]) -> Subject:
    """Return the subject, asked in plain text where its rows have a text and no answer."""
    first = [rows[0] for rows in sets.values()]
    if subject.template == Template() and all("text" in r and "answer" not in r for r in first):
        return replace(subject, template=TEMPLATE)
    return subject


def _rows(texts: Sequence[str]) -> inputs.Rows:
    return [row for one in inputs.sources_of(texts) if one.weight for row in one.rows({})]


def _checked(sets: dict[str, inputs.Rows]) -> dict[str, inputs.Rows]:
    for name, rows in sets.items():
        if not rows:
            raise DataError(f"the {name} set is empty")
    return sets


def _own(sources: Mapping[str, Sequence[str] | None]) -> dict[str, Any] | None:
    """Return the benchmark of these files, by their whole paths: a recipe may lie anywhere.

    None where a set is not one plain file, as that benchmark needs it.
    """
    paths: dict[str, Any] = {"name": "own"}
    for name, texts in sources.items():
        if not texts:
            continue
        (first, *more) = inputs.sources_of(texts)
        if more or first != Source(path=first.path):
            return None
        paths[name] = str(Path(str(first.path)).resolve())
    return {"benchmark": paths}
