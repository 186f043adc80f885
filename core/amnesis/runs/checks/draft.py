"""A faulty recipe without its faults: what is left of it is checked too, so that all is said."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from amnesis.runs.recipe import Recipe


def draft_of(document: Mapping[str, Any]) -> tuple[Recipe, frozenset[str]]:
    """Return what is right of an invalid document, as a recipe, and the keys that have a fault.

    Faulty parts are left out, or are None or their default: a draft is to be looked at, not run.
    """
    kept = copy.deepcopy(dict(document))
    faulty: set[str] = set()
    try:
        Recipe.model_validate(kept)
    except ValidationError as invalid:
        for details in invalid.errors():
            location = [part for part in details["loc"] if isinstance(part, str | int)]
            if location:
                faulty.add(str(location[0]))
                _leave_out(kept, location)
    parts: dict[str, Any] = {"model": None, "benchmark": None}
    for name, field in Recipe.model_fields.items():
        if name not in kept:
            continue
        marked: Any = field.annotation
        if field.metadata:
            marked = Annotated[(field.annotation, *field.metadata)]
        try:
            parts[name] = TypeAdapter(marked).validate_python(kept[name])
        except ValidationError:
            faulty.add(name)
    return Recipe.model_construct(**parts), frozenset(faulty)


def _leave_out(document: Any, location: Sequence[str | int]) -> None:
    """Delete the value at a location, whose parts may be a union's branches too."""
    holder, place = None, None
    for part in location:
        inside = isinstance(document, dict) and part in document
        inside |= isinstance(document, list) and isinstance(part, int) and part < len(document)
        if inside:
            holder, place, document = document, part, document[part]
    if isinstance(holder, dict):
        holder.pop(place)
    elif isinstance(holder, list) and isinstance(place, int):
        holder[place] = None  # so that the places of the others stay
