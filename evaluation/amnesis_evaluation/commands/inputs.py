"""What ``amnesis probe`` and ``suggest`` work on: a model, and two sets of rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from amnesis.data.files import read_rows
from amnesis.discovery.registry import Registry
from amnesis.errors import OutputError, RecipeError
from amnesis.runs.folder import check_empty

Rows = list[Any]

Model = Annotated[str, typer.Argument(help="A model's folder or hub name, or a run's folder.")]
Forget = Annotated[Path | None, typer.Option(help="Rows that must go (JSON, CSV, …).")]
Retain = Annotated[Path | None, typer.Option(help="Rows that must stay.")]
BenchmarkName = Annotated[
    str | None, typer.Option(help="Take both sets from a benchmark, such as fictional.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="First k rows of each set.")]
Device = Annotated[str | None, typer.Option(help="Where to compute.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
]


def check_place(folder: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """See whether ``names`` may be written into ``folder``; nothing is changed.

    Raises:
        OutputError: it is a file, or holds something and ``overwrite`` was not asked for.
    """
    replaced = f"name another --out, or say --overwrite to replace {', '.join(names)} there"
    check_empty(folder, replaced, overwrite=overwrite)
    for taken in (folder / name for name in names):
        if taken.is_dir():
            raise OutputError(f"{taken}: is a folder, not a file to replace; name another --out")


def make_place(folder: Path) -> None:
    """Make the folder for results, before they cost anything.

    Raises:
        OutputError: it cannot be made, or not be written into.
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
    forget: Path | None,
    retain: Path | None,
    benchmark: str | None,
    limit: int | None,
    registry: Registry,
) -> dict[str, Rows]:
    """Return the rows of both sets, from files or from a benchmark.

    Raises:
        RecipeError: neither, or both, were named.
        DataError: a file cannot be read.
    """
    if benchmark is not None and (forget or retain):
        raise RecipeError("give --benchmark, or --forget and --retain, not both")
    if benchmark is not None:
        sets = registry.create("benchmark", benchmark).sets()
        return {name: list(sets[name])[:limit] for name in ("forget", "retain")}
    if forget is None or retain is None:
        raise RecipeError("name both sets: --forget FILE and --retain FILE, or --benchmark NAME")
    return {"forget": read_rows(forget)[:limit], "retain": read_rows(retain)[:limit]}
