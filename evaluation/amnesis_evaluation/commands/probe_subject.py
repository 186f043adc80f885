"""What ``amnesis probe`` and ``suggest`` work on: a model, and two sets of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ConfigDict

from amnesis.contracts import Subject
from amnesis.errors import RecipeError
from amnesis.files import read_rows
from amnesis.models import ModelSettings, load_model, load_tokenizer
from amnesis.recipe import BaseRecipe
from amnesis.registry import default_registry
from amnesis.templates import AnyTemplate, Template

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


def load_subject(path: str, device: str | None, trust_remote_code: bool) -> Subject:
    """Load a model, or the model and the template of a run's folder.

    Raises:
        ModelError: there is no such model.
        RecipeError: the run's recipe cannot be read.
    """
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
