"""What ``amnesis probe`` and ``suggest`` work on: a model, and two sets of rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ConfigDict

from amnesis.contracts import Subject
from amnesis.data.files import read_rows
from amnesis.data.templates import AnyTemplate, Template
from amnesis.discovery.registry import default_registry
from amnesis.errors import OutputError, RecipeError
from amnesis.models.devices import examined_device
from amnesis.models.loading import ModelSettings, load_model, load_tokenizer
from amnesis.runs.folder import refuse_if_full
from amnesis.runs.recipe import BaseRecipe

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


def refuse_place(folder: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """See whether ``names`` may be written into ``folder``; nothing is changed.

    Raises:
        OutputError: it is a file, or holds something and ``overwrite`` was not asked for.
    """
    replaced = f"name another --out, or say --overwrite to replace {', '.join(names)} there"
    refuse_if_full(folder, replaced, overwrite=overwrite)
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


def load_subject(path: str, device: str | None, trust_remote_code: bool) -> Subject:
    """Load a model, or the model and the template of a run's folder.

    Raises:
        ModelError: there is no such model.
        RecipeError: the run's recipe cannot be read, or there is no such device here.
    """
    device = examined_device(device)
    folder = Path(path)
    template = _template_of(folder / "recipe.yaml")
    if (folder / "model" / "config.json").is_file():
        path = str(folder / "model")
    settings = ModelSettings(path=path)
    tokenizer = load_tokenizer(settings, trust_remote_code=trust_remote_code)
    model = load_model(settings, device=device, trust_remote_code=trust_remote_code)
    return Subject(model, tokenizer, template)


def sets_of(
    forget: Path | None, retain: Path | None, benchmark: str | None, limit: int | None
) -> dict[str, Rows]:
    """Give the rows of both sets, from files or from a benchmark.

    Raises:
        RecipeError: neither, or both, were named.
        DataError: a file cannot be read.
    """
    if benchmark is not None and (forget or retain):
        raise RecipeError("give --benchmark, or --forget and --retain, not both")
    if benchmark is not None:
        sets = default_registry().create("benchmark", benchmark).sets()
        return {name: list(sets[name])[:limit] for name in ("forget", "retain")}
    if forget is None or retain is None:
        raise RecipeError("name both sets: --forget FILE and --retain FILE, or --benchmark NAME")
    return {"forget": read_rows(forget)[:limit], "retain": read_rows(retain)[:limit]}


class _Templated(BaseRecipe):
    """The one key that a run's and a finetuning's recipe are both read for."""

    model_config = ConfigDict(extra="ignore")

    template: AnyTemplate | None = None


def _template_of(recipe: Path) -> AnyTemplate:
    if not recipe.is_file():
        return Template()
    try:
        return _Templated.load(recipe).template or Template()
    except RecipeError as error:
        raise RecipeError(f"the template cannot be read: {error}") from None
