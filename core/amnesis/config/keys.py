"""The keys of a record that a person writes: their places, types, defaults and bounds, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

# The attributes by which pydantic's metadata says what a value may be, and how people write it.
_CONSTRAINTS = {
    "gt": "> {}",
    "ge": "≥ {}",
    "lt": "< {}",
    "le": "≤ {}",
    "multiple_of": "a multiple of {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "matches {}",
}


def fields_by_key(
    record: type[BaseModel], values: Mapping[str, type[BaseModel]] | None = None
) -> dict[str, FieldInfo]:
    """Return the fields of a record, and of the records in it, by ``key.sub``; outer ones first.

    ``values`` are the records that a mapping's values are read as, by its key, where the type does
    not say so: they stand below ``key.VALUE``.
    """
    fields: dict[str, FieldInfo] = {}
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in record.model_fields.items():
        fields[name] = field
        inner += [(name, one) for one in records_in(field.annotation)]
        if values and name in values:
            inner.append((f"{name}.VALUE", values[name]))
    for place, one in inner:
        for name, field in fields_by_key(one).items():
            # The forms of a template, and of a model, share keys.
            fields.setdefault(f"{place}.{name}", field)
    return fields


def records_in(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Return the records that a type is made of, each once."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    records = (record for part in get_args(annotation) for record in records_in(part))
    return tuple(dict.fromkeys(records))


def described_field(name: str, field: FieldInfo) -> dict[str, Any]:
    """Return a hyper-parameter, or a key of a recipe, as a record of plain values."""
    from pydantic_core import to_jsonable_python

    required = field.is_required()
    default = None if required else field.get_default(call_default_factory=True, validated_data={})
    return {
        "name": name,
        "type": type_text(field.annotation),
        "required": required,
        "default": to_jsonable_python(default, fallback=repr, inf_nan_mode="strings"),
        "constraints": list(_constraints(field.metadata)),
        "description": field.description or "",
    }


def _constraints(metadata: Iterable[Any]) -> Iterator[str]:
    for item in metadata:
        yield from _constraints(getattr(item, "metadata", ()))  # of a FieldInfo in Annotated
        for attribute, text in _CONSTRAINTS.items():
            value = getattr(item, attribute, None)
            if value is not None:
                yield text.format(value)


def type_text(annotation: Any) -> str:
    """Return a type as a person would write it: ``int | None``, ``'labels' | 'all'``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin is Annotated:
        return " ".join([type_text(arguments[0]), ", ".join(_constraints(arguments[1:]))]).strip()
    if origin in (Union, UnionType):
        return " | ".join(map(type_text, arguments))
    if annotation is Ellipsis:
        return "..."
    if annotation in (None, NoneType):
        return "None"
    name = getattr(annotation, "__name__", str(annotation))
    return f"{name}[{', '.join(map(type_text, arguments))}]" if arguments else name
