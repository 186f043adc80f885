"""The page of a recipe's keys: type, default, bounds and an example of each, from the models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from docs.generate.examples import EXAMPLES
from docs.generate.markdown import code, default_of, prose, table
from pydantic import BaseModel

from amnesis.config.keys import described_field
from amnesis.runs.recipe import FinetuneRecipe, Recipe
from amnesis.training.pacing.goal import Goal, Limit

_BEFORE = """# Recipe

Everything that decides a run stands in its recipe, a YAML file. A key can be changed on the
command line: `amnesis run RECIPE.yaml training.steps=200`. The examples below are such changes;
in the file, a dot is one level deeper. Every problem of a recipe is listed at once, with the key
that it concerns, and an unknown key is an error that suggests the nearest one.

Where the type is *component*, give its name, `objective: wga`, or a mapping with
hyper-parameters, `objective: {name: wga, beta: 1.0}`. Either stream also takes a list of terms,
each with a `weight`: a number, a schedule by step such as `{0: 1.0, 100: 0.2}` (linear between),
or a rule such as `{name: dual}`.
"""
_FINETUNE = """## finetune

`amnesis finetune RECIPE.yaml` makes a model that knows something: a target to unlearn, or a model
that is retrained without the forget set. `template`, `training` and `seed` are as above; these
are its other keys.
"""
# Python's types, and what a recipe's writer calls them; longer ones first.
_TYPES = (
    ("str | dict[str, Any] | ChosenMetric", "component"),
    ("str | dict[str, Any]", "component"),
    ("tuple[float ≥ 0, < 1, float ≥ 0, < 1]", "[float, float]"),
    ("dict[str, dict[str, Path]]", "mapping"),
    ("dict[str, Any]", "mapping"),
    ("dict[str, str]", "mapping"),
    (", ...]", "]"),
    ("tuple[", "list["),
    ("Path", "path"),
    (" | None", ""),
)
# Records that a mapping's values are read as, where the model itself does not say so.
_VALUES: dict[str, type[BaseModel]] = {"until": Goal, "stop_when": Limit}


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of a recipe, and what there is to say of it."""

    name: str
    form: str
    default: str
    bounds: str
    description: str
    holds: tuple[type[BaseModel], ...] = ()


def keys(record: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Yield every key of a record and of the records in it, the outer ones first."""
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in record.model_fields.items():
        one = described_field(name, field)
        held = _records_in(field.annotation)
        if name in _VALUES:
            held = (_VALUES[name],)
        yield Key(
            name=f"{prefix}{name}",
            form="mapping" if held else _in_words(one["type"]),
            default=("" if not one["required"] else "required") if held else default_of(one),
            bounds=", ".join(one["constraints"]),
            description=one["description"],
            holds=held,
        )
        place = f"{prefix}{name}.VALUE." if name in _VALUES else f"{prefix}{name}."
        inner += [(place, record) for record in held]
    seen: set[str] = set()
    for place, held_record in inner:
        for key in keys(held_record, place):
            if key.name not in seen:  # the forms of a template, and of a model, share keys
                seen.add(key.name)
                yield key


def _in_words(text: str) -> str:
    """Return a type as a recipe's writer knows it."""
    for python, words in _TYPES:
        text = text.replace(python, words)
    return text


def _records_in(annotation: Any) -> tuple[type[BaseModel], ...]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    found = (record for part in get_args(annotation) for record in _records_in(part))
    return tuple(dict.fromkeys(found))


def all_keys() -> dict[str, list[Key]]:
    """Return the keys of both recipes: ``run`` and ``finetune``."""
    return {"run": list(keys(Recipe)), "finetune": list(keys(FinetuneRecipe))}


def page() -> str:
    """Return the page."""
    run, finetune = all_keys().values()
    known = {key.name for key in run}
    new = [key for key in finetune if key.name not in known or key.name in ("model", "benchmark")]
    return "\n".join([_BEFORE, _sections("run", run), _FINETUNE, _table("finetune", new)])


def _sections(recipe: str, found: list[Key]) -> str:
    top = [key for key in found if "." not in key.name]
    parts = [f"## {recipe}\n", _table(recipe, top)]
    for key in top:
        inside = [one for one in found if one.name.startswith(f"{key.name}.")]
        if inside:
            parts += [f"### {key.name}\n", _table(recipe, inside)]
    return "\n".join(parts)


def _table(recipe: str, found: list[Key]) -> str:
    rows = ((code(key.name), _value(key), _meaning(recipe, key)) for key in found)
    return table(["key", "type, default, bounds", "what it is, and an example"], rows)


def _value(key: Key) -> str:
    default = key.default if key.default in ("", "required") else f"default {key.default}"
    return ", ".join(part for part in (code(key.form), default, key.bounds) if part)


def _meaning(recipe: str, key: Key) -> str:
    return f"{prose(key.description)}<br>{code(example(recipe, key.name))}"


def example(recipe: str, name: str) -> str:
    """Return the example of a key.

    Raises:
        KeyError: there is none yet.
    """
    found = EXAMPLES.get(f"{recipe}:{name}") or EXAMPLES.get(name)
    if found is None:
        raise KeyError(f"{name} has no example yet: add one to docs/generate/examples.py")
    return found
