"""What is assessed: the sets, how their rows become prompts, and how a recipe would name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amnesis.data.sources import Source
from amnesis.data.templates import Template, TextTemplate
from amnesis.discovery.resolve import build
from amnesis.errors import DataError, RecipeError
from amnesis_evaluation.commands import inputs
from amnesis_evaluation.commands.assess.corpus import TEMPLATE
from amnesis_evaluation.commands.init.looking import check_columns, columns_of

if TYPE_CHECKING:
    from amnesis.contracts import Row, Subject
    from amnesis.discovery.registry import Registry
    from amnesis.runs.recipe import PartialRecipe

_READ = {"question", "answer", "text"}  # what a template names of a row


@dataclass(frozen=True, kw_only=True)
class Material:
    """The sets ``forget`` and, where there are any, ``retain`` and ``holdout``.

    ``document`` is the part of a recipe that names them; None where none can. ``notes`` say how
    their rows are read, where that was guessed.
    """

    sets: Mapping[str, Sequence[Row]]
    document: Mapping[str, Any] | None
    notes: tuple[str, ...] = ()


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


def fitting(subject: Subject, material: Material) -> tuple[Subject, Material]:
    """Return the subject with a template that reads its rows, and the material with what is read.

    Rows with a text and no answer are asked in plain text. Where columns are called otherwise than
    question and answer, those are read that look like it, as ``amnesis init`` finds them; where the
    subject's template reads the rows as they are, nothing is changed and nothing said.

    Raises:
        DataError: which columns are asked and answered cannot be told, or a set lacks them.
    """
    sets = material.sets
    first = [rows[0] for rows in sets.values()]
    if subject.template != Template() or all({"question", "answer"} <= set(row) for row in first):
        return subject, material
    if all("text" in row and "answer" not in row for row in first):
        return replace(subject, template=TEMPLATE), material
    try:
        columns = columns_of([dict(row) for row in sets["forget"]], Path("forget"), None, None)
        for name, rows in sets.items():
            check_columns([dict(rows[0])], Path(name), columns)
    except DataError as error:
        reason = str(error).partition("; say --question")[0]
        raise DataError(
            f"{reason}; name columns as a source does: "
            f"'{{path: FILE, fields: {{question: NAME, answer: NAME}}}}'"
        ) from None
    if columns.form == "messages":
        return subject, material  # refused where the rows are read, with how a chat is given
    read = {"text": TextTemplate(text=columns.text, eos=False)}.get(
        columns.form, Template(question=columns.question, answer=columns.answer)
    )
    note = f"the columns are read as {columns.form}: {', '.join(columns.names())}"
    return replace(subject, template=read), replace(material, notes=(note,))


def _rows(texts: Sequence[str]) -> inputs.Rows:
    return [row for one in inputs.sources_of(texts) if one.weight for row in one.rows({})]


def _checked(sets: dict[str, inputs.Rows]) -> dict[str, inputs.Rows]:
    for name, rows in sets.items():
        if not rows:
            raise DataError(f"the {name} set is empty")
    return sets


def _own(sources: Mapping[str, Sequence[str] | None]) -> dict[str, Any] | None:
    """Return the benchmark of these files, by their whole paths: a recipe may lie anywhere.

    What their sources rename, a template names. None where a set is not one file, or columns are
    called differently in different sets: that benchmark has one template for all its files.
    """
    paths: dict[str, Any] = {"name": "own"}
    fields: list[dict[str, str]] = []
    for name, texts in sources.items():
        if not texts:
            continue
        (first, *more) = inputs.sources_of(texts)
        if more or first != Source(path=first.path, fields=first.fields):
            return None
        paths[name] = str(Path(str(first.path)).resolve())
        fields.append(first.fields)
    if any(names != fields[0] or not set(names) <= _READ for names in fields):
        return None
    return {"benchmark": paths, **({"template": fields[0]} if fields[0] else {})}
