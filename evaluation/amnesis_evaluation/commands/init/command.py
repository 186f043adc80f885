"""``amnesis init``: a recipe for one's own files, with comments, that passes ``--check``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amnesis_evaluation.commands import inputs

if TYPE_CHECKING:
    from amnesis_evaluation.commands.init.looking import Columns

LARGE = 1.5e9  # parameters from which on an adapter is proposed
GENERATED = 50  # answers a set, where there are as many rows


def init(  # long for its options: each is a line of --help
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="The recipe to write.")] = Path("recipe.yaml"),
    model: Annotated[str | None, typer.Option(help="The model: a folder or a hub name.")] = None,
    forget: Annotated[Path | None, typer.Option(help="Rows to forget (JSON, CSV, …).")] = None,
    retain: Annotated[Path | None, typer.Option(help="Rows to keep.")] = None,
    holdout: Annotated[Path | None, typer.Option(help="Rows that no training has seen.")] = None,
    facts: Annotated[Path | None, typer.Option(help="Rows of other knowledge.")] = None,
    question: Annotated[str | None, typer.Option(help="The column that is asked.")] = None,
    answer: Annotated[str | None, typer.Option(help="The column that is answered.")] = None,
    objective: Annotated[str, typer.Option(help="The objective.")] = "wga",
    regularizer: Annotated[str, typer.Option(help="The regularizer.")] = "kl",
    combiner: Annotated[str, typer.Option(help="The combiner.")] = "pcgrad",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a recipe that is there.")
    ] = False,
    device: inputs.Device = None,
    trust_remote_code: inputs.TrustRemoteCode = False,
) -> None:
    """Write a commented recipe for your own files: asks on a terminal, takes options elsewhere.

    It looks at the files' columns, and at the model's size and chat template. The recipe is
    checked before it is written.
    """
    from amnesis.cli import console, quiet_libraries, registry_of
    from amnesis.errors import OutputError
    from amnesis.runs.preflight import prepare
    from amnesis.runs.recipe import Recipe
    from amnesis_evaluation.commands.init.looking import check_columns, columns_of, look

    if recipe.exists() and (recipe.is_dir() or not overwrite):
        raise OutputError(f"{recipe}: is there already; name another file, or say --overwrite")
    quiet_libraries()
    model = model or _asked("model", "The model to unlearn (a folder or a hub name)")
    files = {
        "forget": forget or Path(_asked("forget", "The file of rows to forget")),
        "retain": retain or Path(_asked("retain", "The file of rows to keep")),
        **{name: file for name, file in (("holdout", holdout), ("facts", facts)) if file},
    }
    rows = {name: look(file) for name, file in files.items()}
    columns = columns_of(rows["forget"], files["forget"], question, answer)
    for name, file in files.items():
        check_columns(rows[name], file, columns)
    text = _text(
        file=recipe,
        model=model,
        **{name: str(files[name]) if name in files else None for name in _SETS},
        counts={name: len(part) for name, part in rows.items()},
        template=_template(columns, model, trust_remote_code),
        objective=objective,
        regularizer=regularizer,
        combiner=combiner,
        **_sizes(model, len(rows["forget"]), trust_remote_code),
    )
    settings = Recipe.parse(_document(text), str(recipe))
    prepared = prepare(
        settings, device=device, trust_remote_code=trust_remote_code, registry=registry_of(context)
    )
    from amnesis.storage import write_text

    write_text(recipe, text)
    plain = console()
    for name, part in rows.items():
        plain.print(f"{name}: {len(part)} rows of {files[name]}, {', '.join(part[0])}")
    plain.print(f"read as {columns.form}: {', '.join(columns.names())}", soft_wrap=True)
    for line in prepared.cost.lines():
        plain.print(line, soft_wrap=True)
    plain.print(f"{recipe} is written; to go on: amnesis run {recipe}", soft_wrap=True)


_SETS = ("forget", "retain", "holdout", "facts")


def _asked(option: str, prompt: str) -> str:
    """Return what a person answers on a terminal.

    Raises:
        RecipeError: there is no terminal to ask on.
    """
    from amnesis.errors import RecipeError

    if not sys.stdin.isatty():
        raise RecipeError(f"name --{option}: there is no terminal here to ask on")
    return str(typer.prompt(prompt)).strip()


def _template(columns: Columns, model: str, trust_remote_code: bool) -> dict[str, Any]:
    """Return what the template must say: of a model with a chat template, that it is asked so."""
    from amnesis.models.loading import ModelSettings, load_tokenizer

    if columns.form == "text":
        return {"format": "text"} | ({"text": columns.text} if columns.text != "text" else {})
    tokenizer = load_tokenizer(ModelSettings(path=model), trust_remote_code=trust_remote_code)
    template: dict[str, Any] = {}
    if columns.form == "messages" or tokenizer.chat_template:
        template["format"] = "chat"
    if columns.form == "question_answer":
        named = {"question": columns.question, "answer": columns.answer}
        template |= {key: name for key, name in named.items() if key != name}
    return template


def _sizes(model: str, rows: int, trust_remote_code: bool) -> dict[str, Any]:
    """Return the sizes of a run on a model: what usually forgets, and fits."""
    from amnesis.models.loading import ModelSettings, check_model, empty_model

    skeleton = empty_model(check_model(ModelSettings(path=model), trust_remote_code))
    parameters = 0 if skeleton is None else sum(p.numel() for p in skeleton.parameters())
    lora = parameters > LARGE
    return {
        "batch_size": min(8, rows),
        "lora": lora,
        "generate_rows": min(GENERATED, rows),
    }


def _text(**values: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # noqa: S701  # what is written is YAML, not HTML
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # JSON's texts are YAML's, whatever is in them.
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.get_template("recipe.yaml.j2").render(**values)


def _document(text: str) -> Any:
    from amnesis.config.documents import parse_yaml

    return parse_yaml(text, "the recipe")
