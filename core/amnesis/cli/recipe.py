"""``amnesis recipe``: a key explained, or the JSON Schema by which editors complete and check."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from amnesis.discovery.registry import Registry

# The keys whose values name components, and of which kind.
KINDS = {
    "objective": "objective",
    "regularizer": "regularizer",
    "combiner": "combiner",
    "procedure": "procedure",
    "robust": "perturbation",
    "probes": "probe",
    "attacks": "attack",
    "benchmark": "benchmark",
    "evaluate.metrics": "metric",
    "evaluate.during": "metric",
}
_LISTS = {"probes", "attacks", "evaluate.metrics", "evaluate.during"}
_MANY = {"objective", "regularizer", *_LISTS}  # may be lists
_PATHS = ("ModelSettings", "Source")  # records that a bare text is the path of
_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class Of(StrEnum):
    """The two recipes."""

    run = "run"
    finetune = "finetune"


def recipe(
    context: typer.Context,
    of: Annotated[Of, typer.Argument(help="Of which command the recipe is.")] = Of.run,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema, for editors.")
    ] = False,
    explain: Annotated[
        str | None, typer.Option(metavar="KEY", help="Explain a key, such as training.steps.")
    ] = None,
) -> None:
    """List the keys of a recipe, explain one of them, or print the JSON Schema.

    With the schema in a file, and `# yaml-language-server: $schema=FILE` as a recipe's first line,
    editors complete keys and names, and mark what is wrong.
    """
    from amnesis.cli.terminal import console, registry_of
    from amnesis.errors import RecipeError

    if schema and explain is not None:
        raise RecipeError("give --schema or --explain, not both")
    if schema:
        print(json.dumps(schema_of(of, registry_of(context)), indent=2, ensure_ascii=False))
        return
    plain = console()
    if explain is not None:
        for line in explained(of, explain, registry_of(context)):
            plain.print(line, soft_wrap=True)
        return
    for name, field in keys_of(of).items():
        plain.print(f"{name}: {field.description or ''}".rstrip(": "), soft_wrap=True)


def keys_of(of: Of) -> dict[str, FieldInfo]:
    """Return every key of a recipe by its place, ``training.steps``."""
    from amnesis.config.keys import fields_by_key
    from amnesis.training.pacing.goal import Goal, Limit

    return fields_by_key(_record(of), {"until": Goal, "stop_when": Limit})


def explained(of: Of, key: str, registry: Registry) -> Iterator[str]:
    """Yield lines that say of a key its type, default, bounds, meaning, and an example.

    The last part of a key is enough where it is the only one called so.

    Raises:
        RecipeError: there is no such key; near ones are named.
    """
    from amnesis.config.keys import described_field
    from amnesis.errors import RecipeError, did_you_mean

    keys = keys_of(of)
    places = [key] if key in keys else [k for k in keys if k.rpartition(".")[2] == key]
    if not places:
        parent = key.rpartition(".")[0]
        near = [k for k in keys if k.rpartition(".")[0] == parent] if parent in keys else keys
        raise RecipeError(f"--explain {key}: a recipe has no such key; {did_you_mean(key, near)}")
    if len(places) > 1:
        raise RecipeError(f"--explain {key}: say which: {', '.join(places)}")
    (place,) = places
    one = described_field(place, keys[place])
    inside = [name for name in keys if name.startswith(f"{place}.")]
    words = [_form(place, one["type"], inside)]
    if one["required"]:
        words.append("required")
    elif not inside:
        default = "none" if one["default"] is None else json.dumps(one["default"])
        words.append(f"default {default}")
    yield ", ".join([f"{place}: {words[0]}", *words[1:], *one["constraints"]])
    if one["description"]:
        yield f"  {one['description']}"
    shown = inside[0] if inside and place not in KINDS else place
    yield f"  example: {example(shown, keys[shown], registry)}"
    if inside:
        yield f"  has: {', '.join(name.removeprefix(f'{place}.') for name in inside)}"
    if place in KINDS:
        yield f"  names: {', '.join(registry.names(KINDS[place]))} (amnesis plugins NAME)"


def _form(place: str, text: str, inside: list[str]) -> str:
    if place in KINDS:
        form = f"a component's name ({KINDS[place]}), or {{name: …, hyper-parameters}}"
        return f"{form}, or a list of them" if place in _MANY else form
    return "a mapping" if inside else text


def example(place: str, field: FieldInfo, registry: Registry) -> str:
    """Return a change that the command line takes, ``training.steps=10``."""
    from amnesis.config.keys import described_field

    if place in KINDS:
        name = _first_that_needs_nothing(KINDS[place], registry)
        return f"{place}={f'[{name}]' if place in _LISTS else name}"
    one = described_field(place, field)
    value = one["default"]
    literals = [option for option in _literals(field.annotation) if option != value]
    if isinstance(value, bool):
        value = not value
    elif literals:
        value = literals[0]
    elif value is None or isinstance(value, dict | list):
        value = _typical(one["type"])
    is_plain = isinstance(value, str) and re.fullmatch(r"[\w.-]+", value)
    shown = value if is_plain else json.dumps(value)
    text = f"{place.replace('.VALUE', '.forget/loss')}={shown}"
    return f"{_format_of(place)}{shlex.quote(text)}"


def _format_of(place: str) -> str:
    """Return the change that a key of another format than the usual one needs beside it."""
    from amnesis.data.templates import ChatTemplate, Template, TextTemplate

    section, _, key = place.partition(".")
    if section != "template" or key in Template.model_fields:
        return ""
    form = ChatTemplate if key in ChatTemplate.model_fields else TextTemplate
    return f"template.format={form.model_fields['format'].default} "


def _first_that_needs_nothing(kind: str, registry: Registry) -> str:
    """Return a name of a kind that stands alone: without hyper-parameters that must be given."""
    from amnesis.errors import AmnesisError

    names = registry.names(kind)
    for name in names:
        try:
            registry.create(kind, name)
        except AmnesisError:
            continue
        return name
    return names[0]


def _literals(annotation: Any) -> list[Any]:
    return [
        option
        for part in (annotation, *get_args(annotation))
        if getattr(part, "__origin__", None) is not None and "Literal" in str(part.__origin__)
        for option in get_args(part)
    ]


def _typical(form: str) -> Any:
    """Return a value of a type that has no telling default."""
    for word, value in (
        ("list[str]", ["*.mlp.*"]),
        ("tuple[float", [0.5, 0.5]),
        ("tuple[str", ["name"]),
        ("dict[str, str]", {"question": "frage"}),
        ("dict", {}),
        ("int", 10),
        ("float", 0.5),
        ("Path", "folder"),
    ):
        if word in form:
            return value
    return "name"


def schema_of(of: Of, registry: Registry) -> dict[str, Any]:
    """Return the JSON Schema of a recipe, with the names of all that is installed."""
    schema = _record(of).model_json_schema()
    definitions: dict[str, Any] = schema.get("$defs", {})
    for name in _PATHS:
        if name in definitions:
            definitions[name] = {"anyOf": [{"type": "string"}, definitions[name]]}
    _short_dtypes(schema)
    if "template" in schema["properties"]:  # whose format, if it is not said, is the first
        template = schema["properties"]["template"]
        template["anyOf"] = template.pop("oneOf")
    properties = schema["properties"]
    for key in ("forget", "retain"):
        if key in properties:
            item = {"$ref": "#/$defs/Source"}
            properties[key]["anyOf"] = [item, {"type": "array", "items": item}]
            del properties[key]["type"], properties[key]["items"]
    for key, kind in KINDS.items():
        if key in properties:
            kept = {k: v for k, v in properties[key].items() if k in ("description", "title")}
            required = key in schema.get("required", ())
            choice = _choice(registry.names(kind), key, required=required)
            properties[key] = {**kept, **choice}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _choice(names: list[str], key: str, *, required: bool) -> dict[str, Any]:
    """Return the schema of a component: its name, or a mapping with it, or a list where it may."""
    name = {"enum": names}
    one = [name, {"type": "object", "properties": {"name": name}, "required": ["name"]}]
    several = {"type": "array", "items": {"anyOf": one}}
    if key in _LISTS:
        return several
    options = [*one, several] if key in _MANY else one
    return {"anyOf": options if required else [*options, {"type": "null"}]}


def _short_dtypes(node: Any) -> None:
    """Add the short names of types wherever the long ones may stand."""
    if isinstance(node, Mapping):
        options = node.get("enum")
        if isinstance(options, list) and "bfloat16" in options:
            options += [_DTYPES[option] for option in list(options) if option in _DTYPES]
        for value in node.values():
            _short_dtypes(value)
    elif isinstance(node, list):
        for value in node:
            _short_dtypes(value)


def _record(of: Of) -> type[BaseModel]:
    from amnesis.runs.recipe import FinetuneRecipe, Recipe

    return Recipe if of is Of.run else FinetuneRecipe
