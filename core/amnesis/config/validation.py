"""From what pydantic found wrong to words: which key, what is wrong with it, what was meant."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, Tag, ValidationError

from amnesis.errors import AmnesisError, RecipeError, did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Record = TypeVar("Record", bound=BaseModel)
# How pydantic names a union's branches: types, not the lower-case keys of our documents.
_BRANCH = re.compile(r"(str|int|float|bool|constrained-\w+|[A-Z]\w*|[\w-]+\[.*\])$")
_ABOUT_A_KEY = ("extra_forbidden", "missing")


def validated(
    record: type[Record],
    document: Mapping[str, Any],
    where: str,
    *,
    error: type[AmnesisError] = RecipeError,
    context: Mapping[str, Any] | None = None,
) -> Record:
    """Return a record of a document of plain values; ``context`` is for the record's validators.

    Raises:
        AmnesisError: an ``error``, naming ``where`` and listing every problem, one to a line.
    """
    try:
        return record.model_validate(document, context=context)
    except ValidationError as invalid:
        found = problems(record, invalid)
    if len(found) == 1:
        raise error(f"{where}: {found[0]}")
    raise error(f"{where}: {len(found)} problems\n" + "\n".join(f"  - {p}" for p in found))


def problems(record: type[BaseModel], error: ValidationError) -> list[str]:
    """Return every problem that pydantic found in a document for ``record``, in words."""
    tags = _tags_by_field(record)
    found = [
        Problem(tuple(map(str, one["loc"])), one, tags)
        for one in error.errors()
        if one["type"] != "is_instance_of"  # an object, which no document can hold
    ]
    return [problem.described(record) for problem in _of_likely_branches(found)]


@dataclass(frozen=True)
class Problem:
    """What is wrong, and where.

    ``tags`` are the records of each field that is told apart by a tag, by tag; ``others`` what else
    the same value might have been.
    """

    location: tuple[str, ...]
    details: ErrorDetails
    tags: Mapping[str, Mapping[str, type[BaseModel]]]
    others: tuple[ErrorDetails, ...] = ()

    @property
    def shown(self) -> list[str]:
        """The location as it stands in the document: without the branches of unions."""
        return [part for k, part in enumerate(self.location) if not self.is_branch(k)]

    def is_branch(self, place: int) -> bool:
        """Whether a part of the location is a union's branch and not a key."""
        part = self.location[place]
        if place and part in self.tags.get(self.location[place - 1], ()):
            return True
        is_key = place == len(self.location) - 1 and self.details["type"] in _ABOUT_A_KEY
        return not is_key and place > 0 and bool(_BRANCH.match(part))

    def described(self, root: type[BaseModel]) -> str:
        """Word it."""
        where = ".".join(self.shown)
        if self.details["type"] == "extra_forbidden":
            fields = _fields_at(root, self.location[:-1])
            return f"{where}: unknown key; {did_you_mean(self.location[-1], fields)}"
        if self.details["type"] == "missing":
            return f"{where}: is missing"
        if self.details["type"] == "union_tag_invalid":
            known, tag = (self.details["ctx"][key] for key in ("expected_tags", "tag"))
            return f"{where}.format: must be one of {known} (got {tag!r})"
        first, *others = (d["msg"].removeprefix("Value error, ") for d in self._all())
        message = " or ".join([first, *(text.removeprefix("Input should be ") for text in others)])
        given = self.details["input"]
        quoted = "" if isinstance(given, (dict, BaseModel)) else f" (got {reprlib.repr(given)})"
        return f"{where}: {message}{quoted}" if where else f"{message}{quoted}"

    def _all(self) -> list[ErrorDetails]:
        return [self.details, *self.others]


def _of_likely_branches(found: Sequence[Problem], start: int = 0) -> list[Problem]:
    """Keep of each union what is wrong with the branch that the writer most likely meant.

    pydantic tells what is wrong with every branch. The likeliest is the one in which the mistake
    lies deepest, then the one with the fewest; equally likely ones become one problem.
    """
    kept: list[Problem] = []
    unions: dict[tuple[str, ...], dict[str, list[Problem]]] = {}
    for problem in found:
        places = range(start, len(problem.location))
        branch = next((k for k in places if problem.is_branch(k)), None)
        if branch is None:
            kept.append(problem)
        else:
            union = unions.setdefault(problem.location[:branch], {})
            union.setdefault(problem.location[branch], []).append(problem)
    for prefix, branches in unions.items():
        candidates = [_of_likely_branches(own, len(prefix) + 1) for own in branches.values()]
        depth = max(len(p.shown) for own in candidates for p in own)
        deepest = [own for own in candidates if max(len(p.shown) for p in own) == depth]
        fewest = [own for own in deepest if len(own) == min(map(len, deepest))]
        first, *equals = fewest
        if len(first) == 1 and all(own[0].shown == first[0].shown for own in equals):
            others = tuple(details for own in equals for details in own[0]._all())
            first = [replace(first[0], others=(*first[0].others, *others))]
        kept += first
    return kept


def _fields_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    candidates: list[type[BaseModel]] = []
    tags: dict[str, type[BaseModel]] = {}
    for part in location:
        if part in tags:
            model, tags = tags[part], {}
            continue
        named = [c for c in candidates if c.__name__ == part]
        if named:
            model = named[0]
        field = model.model_fields.get(part)
        if field is None:
            continue  # a place in a list, or a union's branch
        tags = _tags(field.annotation)
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        candidates = [c for c in kinds if isinstance(c, type) and issubclass(c, BaseModel)]
        if candidates:
            model = candidates[0]
    return sorted(model.model_fields)


def _tags_by_field(record: type[BaseModel]) -> dict[str, dict[str, type[BaseModel]]]:
    found = {name: _tags(field.annotation) for name, field in record.model_fields.items()}
    return {name: tags for name, tags in found.items() if tags}


def _tags(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return the branches of a union that are told apart by a tag, ``{tag: record}``."""
    return {
        tag.tag: branch
        for branch, *metadata in (get_args(one) or (one,) for one in get_args(annotation))
        for tag in metadata
        if isinstance(tag, Tag)
    }
