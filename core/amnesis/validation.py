"""From what pydantic found wrong to words: which key, what is wrong with it, what was meant."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from amnesis.errors import RecipeError, did_you_mean
from amnesis.templates import TEMPLATES

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Record = TypeVar("Record", bound=BaseModel)


def validated(record: type[Record], document: Mapping[str, Any], where: str) -> Record:
    """Make a record of a document of plain values.

    Raises:
        RecipeError: naming ``where``, and listing every problem, one to a line.
    """
    try:
        return record.model_validate(document)
    except ValidationError as error:
        found = problems(record, error)
    if len(found) == 1:
        raise RecipeError(f"{where}: {found[0]}")
    raise RecipeError(f"{where}: {len(found)} problems\n" + "\n".join(f"  - {p}" for p in found))


def problems(record: type[BaseModel], error: ValidationError) -> list[str]:
    """Give every problem that pydantic found in a document for ``record``, in words."""
    return [_described(record, problem) for problem in error.errors()]


def _described(root: type[BaseModel], problem: ErrorDetails) -> str:
    location = [str(part) for part in problem["loc"]]
    # A union's tag stands in the location, but not in the document.
    shown = [part for k, part in enumerate(location) if not (k and part in _tags(location[k - 1]))]
    where = ".".join(shown)
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(root, location[:-1])
        return f"{where}: unknown key; {did_you_mean(location[-1], fields)}"
    if problem["type"] == "missing":
        return f"{where}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem["input"]
    quoted = "" if isinstance(given, (dict, BaseModel)) else f" (got {reprlib.repr(given)})"
    return f"{where}: {message}{quoted}" if where else f"{message}{quoted}"


def _tags(parent: str) -> Sequence[str]:
    return tuple(TEMPLATES) if parent == "template" else ()


def _fields_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    for part in location:
        if part in TEMPLATES:
            return sorted(TEMPLATES[part].model_fields)
        field = model.model_fields.get(part)
        if field is None:
            continue  # a place in a list
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if inner:
            model = inner[0]
    return sorted(model.model_fields)
