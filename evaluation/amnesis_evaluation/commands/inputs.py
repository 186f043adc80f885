"""Inputs that several commands share: a model, two sets of rows, methods, a folder for results.

One thing is said in one way everywhere: rows as a recipe's ``forget`` says them, components as
``name:key=value``, and whatever may be several either by commas or by repeating the option.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amnesis.config.documents import parse_yaml
from amnesis.config.validation import validated
from amnesis.data.sources import Source
from amnesis.discovery.registry import Registry
from amnesis.discovery.resolve import build
from amnesis.errors import OutputError, RecipeError

if TYPE_CHECKING:
    from amnesis.contracts import Benchmark
    from amnesis.runs.recipe import PartialRecipe

Rows = list[Any]

Model = Annotated[str, typer.Argument(help="A model's folder or hub name, or a run's folder.")]
Forget = Annotated[
    list[str] | None,
    typer.Option(
        help="Rows to forget: a file (JSON, CSV, …), or a source as in a recipe; repeatable.",
        show_default="the run's",
    ),
]
Retain = Annotated[
    list[str] | None, typer.Option(help="Rows to retain, likewise.", show_default="the run's")
]
BenchmarkName = Annotated[
    str | None,
    typer.Option(
        help="Take the sets from a benchmark, such as tofu:split=forget05.",
        show_default="the run's",
    ),
]
CANDIDATES = "ga+nll,npo+nll,simnpo+nll,wga+nll,tnpo+nll,npo+kl,wga+kl,wga+nll/sago"
Candidates = Annotated[
    list[str] | None,
    typer.Option(
        help="objective[+regularizer][/combiner], separated by commas or repeated.",
        show_default=CANDIDATES,
    ),
]
TrialSteps = Annotated[int, typer.Option(min=1, help="Optimizer steps of each candidate.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use the first k rows of each set.")]
Device = Annotated[str | None, typer.Option(help="Device to compute on, such as cpu or cuda.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Allow code that comes with the model to run.")
]


def check_place(folder: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """Check that the files ``names`` may be written into ``folder``; nothing is changed.

    Raises:
        OutputError: ``folder`` is a file, is not empty while ``overwrite`` is false, or holds a
            folder of one of the names.
    """
    advice = f"name another --out, or say --overwrite to replace {', '.join(names)} there"
    from amnesis.runs.folder import check_empty  # which imports all that a run needs

    check_empty(folder, advice, overwrite=overwrite)
    for file in (folder / name for name in names):
        if file.is_dir():
            raise OutputError(f"{file}: is a folder, not a file to replace; name another --out")


def make_place(folder: Path) -> None:
    """Create the folder for results, before anything is computed.

    Raises:
        OutputError: the folder cannot be created or written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be made: {error.strerror}; name another --out"
        ) from error
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder}: cannot be written: no permission; name another --out")


def sets_of(
    forget: Sequence[str] | None,
    retain: Sequence[str] | None,
    benchmark: str | None,
    limit: int | None,
    registry: Registry,
    recipe: PartialRecipe | None = None,
) -> dict[str, Rows]:
    """Return the first ``limit`` rows of ``forget`` and ``retain``.

    They are from files or other sources, from a benchmark, or else what the ``recipe`` of the
    model's run says.

    Raises:
        RecipeError: there is no word of a set, or one is given twice over.
        DataError: a file cannot be read.
    """
    check_one_place(forget, retain, benchmark)
    suite: Benchmark | None = None
    if benchmark is not None:
        suite = build("benchmark", choice_of(benchmark, "benchmark"), registry)
    elif recipe is not None and recipe.benchmark is not None:
        if not (forget and retain):
            suite = build("benchmark", recipe.benchmark, registry)
    elif not (forget and retain):
        raise RecipeError(
            "name both sets: --forget FILE and --retain FILE, or --benchmark NAME, or a run's "
            "folder as MODEL"
        )
    sets = {} if suite is None else suite.sets()
    rows: dict[str, Rows] = {}
    for name, texts in (("forget", forget), ("retain", retain)):
        sources = (
            sources_of(texts) if texts else _sources_in(recipe if not benchmark else None, name)
        )
        rows[name] = [row for one in sources if one.weight for row in one.rows(sets)][:limit]
    return rows


def check_one_place(
    forget: Sequence[str] | None, retain: Sequence[str] | None, benchmark: str | None
) -> None:
    """Refuse rows from a benchmark and from elsewhere at once.

    Raises:
        RecipeError: both are given.
    """
    if benchmark is not None and (forget or retain):
        raise RecipeError("give --benchmark, or --forget and --retain, not both")


def sources_of(texts: Iterable[str]) -> list[Source]:
    """Return what the values of ``--forget`` or ``--retain`` stand for, as in a recipe.

    Each is a file, or the mapping of a source: ``{path: people.csv, fields: {question: frage}}``.

    Raises:
        RecipeError: a mapping is not that of a source.
    """
    sources = []
    for text in texts:
        value = parse_yaml(text, text) if text.lstrip().startswith("{") else {"path": text}
        sources.append(validated(Source, value, text))
    return sources


def _sources_in(recipe: PartialRecipe | None, name: str) -> list[Source]:
    value = (recipe.model_extra or {}).get(name) if recipe is not None else None
    if value is None:
        return [Source(set=name)]
    listed = value if isinstance(value, list) else [value]
    documents = [one if isinstance(one, Mapping) else {"path": one} for one in listed]
    return [validated(Source, document, f"the run's {name}") for document in documents]


def parts_of(values: str | Iterable[str] | None) -> list[str]:
    """Return the parts of an option's values, which commas or its repetition separate.

    A comma inside brackets or braces separates nothing.
    """
    if values is None:
        return []
    parts = []
    for value in [values] if isinstance(values, str) else values:
        depth, part = 0, ""
        for character in value:
            depth += (character in "[{") - (character in "]}")
            if character == "," and depth <= 0:
                parts.append(part)
                part = ""
            else:
                part += character
        parts.append(part)
    return [part.strip() for part in parts if part.strip()]


def choice_of(text: str, what: str = "objective") -> dict[str, Any]:
    """Return the name and the hyper-parameters that a text such as ``wga`` or ``wga:beta=5`` names.

    A part without a ``=`` belongs to the name, as in ``distribution:wga:beta=5``. ``what`` it is
    is said in messages.

    Raises:
        RecipeError: a hyper-parameter is not written as key=value, or its value is not YAML.
    """
    name, *hyper = text.strip().split(":")
    if hyper and hyper[0] and "=" not in hyper[0]:
        name = f"{name}:{hyper.pop(0)}"
    choice: dict[str, Any] = {"name": name}
    for part in hyper:
        key, equals, value = part.partition("=")
        if not (key and equals):
            raise RecipeError(f"{what} {text.strip()!r}: write name:key=value, as in wga:beta=5")
        try:
            choice[key] = parse_yaml(value, key)
        except RecipeError:
            raise RecipeError(
                f"{what} {text.strip()!r}: {value!r} is not a YAML value; commas separate "
                f"{what}s, so a value cannot contain one outside of brackets"
            ) from None
    return choice
