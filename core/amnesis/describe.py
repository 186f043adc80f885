"""What ``amnesis plugins`` shows: every name without importing it, or one component in full."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from amnesis.manager import Fault
    from amnesis.registry import Entry

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


def listed(entry: Entry) -> dict[str, Any]:
    """Give what is known of an entry without importing its target."""
    target = entry.target if isinstance(entry.target, str) else _path(entry.target)
    return {
        "kind": entry.kind,
        "name": entry.name,
        "summary": entry.summary,
        "distribution": entry.plugin.distribution,
        "version": entry.plugin.version,
        "entry_point": entry.plugin.entry_point,
        "target": target,
    }


def listed_fault(fault: Fault) -> dict[str, str]:
    """Give a fault as a record."""
    return {
        "distribution": fault.plugin.distribution,
        "version": fault.plugin.version,
        "entry_point": fault.plugin.entry_point,
        "message": str(fault),
    }


def described(entry: Entry) -> dict[str, Any]:
    """Import an entry's target and give all that is known of it.

    Raises:
        PluginError: the target cannot be loaded, or breaks its contract.
    """
    target = entry.load()
    fields: Mapping[str, FieldInfo] = getattr(target, "model_fields", {})
    return {
        **listed(entry),
        "formula": getattr(target, "formula", ""),
        "source": getattr(target, "source", ""),
        # The class's own: getdoc() would give the contract's where a component has none.
        "docstring": inspect.cleandoc(target.__doc__ or ""),
        "hyper_parameters": [_hyper_parameter(name, field) for name, field in fields.items()],
        "origin": _origin(target),
    }


def _hyper_parameter(name: str, field: FieldInfo) -> dict[str, Any]:
    from pydantic_core import to_jsonable_python

    required = field.is_required()
    default = None if required else field.get_default(call_default_factory=True, validated_data={})
    return {
        "name": name,
        "type": type_text(field.annotation),
        "required": required,
        "default": to_jsonable_python(default, fallback=repr),
        "constraints": list(_constraints(field.metadata)),
        "description": field.description or "",
    }


def _constraints(metadata: Iterable[Any]) -> Iterable[str]:
    for item in metadata:
        for attribute, text in _CONSTRAINTS.items():
            value = getattr(item, attribute, None)
            if value is not None:
                yield text.format(value)


def type_text(annotation: Any) -> str:
    """Give a type as a person would write it: ``int | None``, ``'labels' | 'all'``."""
    if get_origin(annotation) is Literal:
        return " | ".join(map(repr, get_args(annotation)))
    if isinstance(annotation, type) and not get_args(annotation):
        return "None" if annotation is type(None) else annotation.__name__
    return str(annotation).replace("typing.", "").replace("NoneType", "None")


def _origin(target: Any) -> str:
    """Give ``file:line`` where the target is defined, or its module where there is no file."""
    try:
        return f"{inspect.getsourcefile(target)}:{inspect.getsourcelines(target)[1]}"
    except (OSError, TypeError):
        return _path(target)


def _path(target: Any) -> str:
    name = getattr(target, "__qualname__", type(target).__qualname__)
    return f"{getattr(target, '__module__', '?')}:{name}"
