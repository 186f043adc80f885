"""Pydantic's validation, with errors in plain words: which key, what is wrong, what to write."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, Tag, ValidationError

from amnesis.config.keys import fields_by_key
from amnesis.config.problems import listed
from amnesis.errors import AmnesisError, RecipeError, did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Record = TypeVar("Record", bound=BaseModel)
# Pydantic puts a union's branch into an error's location by its type, such as "Template",
# "constrained-str" or "list[str]"; the keys of our documents are in lower case.
_BRANCH = re.compile(r"(str|int|float|bool|constrained-\w+|[A-Z]\w*|[\w-]+\[.*\])$")
AND = "\x1f"  # between the messages of a validator that finds several mistakes at once
_ABOUT_A_KEY = ("extra_forbidden", "missing")


def validated(
    record: type[Record],
    document: Mapping[str, Any],
    where: str,
    *,
    error: type[AmnesisError] = RecipeError,
    context: Mapping[str, Any] | None = None,
) -> Record:
    """Return ``document``, a mapping of plain values, as a record.

    ``where`` names the document in messages; ``context`` is passed to the record's validators.

    Raises:
        AmnesisError: of type ``error``: the document is invalid; every problem is listed.
    """
    try:
        return record.model_validate(document, context=context)
    except ValidationError as invalid:
        messages = problems(record, invalid)
    if len(messages) == 1:
        messages = [f"{where}: {messages[0]}"]
    raise listed(where, messages, error=error)


def problems(record: type[BaseModel], error: ValidationError) -> list[str]:
    """Return one message for each mistake in a document that pydantic refused as ``record``.

    A validator that finds several puts :data:`AND` between them.
    """
    tags = _tags_by_field(record)
    candidates = [
        Problem(tuple(map(str, details["loc"])), details, tags)
        for details in error.errors()
        if details["type"] != "is_instance_of"  # a branch for objects, which no document can hold
    ]
    likely = _keep_likely_branches(candidates)
    return [line for problem in likely for line in problem.described(record).split(AND)]


@dataclass(frozen=True)
class Problem:
    """One of pydantic's errors, to be put into words.

    Attributes:
        location: the keys and union branches that lead to the value, from the outermost in.
        details: pydantic's error.
        tags: for each field that is a tagged union, its records by tag.
        others: errors of the branches that the value could equally well have been meant for.
    """

    location: tuple[str, ...]
    details: ErrorDetails
    tags: Mapping[str, Mapping[str, type[BaseModel]]]
    others: tuple[ErrorDetails, ...] = ()

    @property
    def shown(self) -> list[str]:
        """The location without union branches: the keys as they stand in the document."""
        return [part for k, part in enumerate(self.location) if not self.is_branch(k)]

    def is_branch(self, place: int) -> bool:
        """Whether the location's part at index ``place`` is a union branch rather than a key."""
        part = self.location[place]
        if place and part in self.tags.get(self.location[place - 1], ()):
            return True
        is_key = place == len(self.location) - 1 and self.details["type"] in _ABOUT_A_KEY
        return not is_key and place > 0 and bool(_BRANCH.match(part))

    def described(self, root: type[BaseModel]) -> str:
        """Return the message; ``root`` is the record that the whole document was read as."""
        where = ".".join(self.shown)
        if self.details["type"] == "extra_forbidden":
            fields, key = _fields_at(root, self.location[:-1]), self.location[-1]
            keys = fields_by_key(root)
            places = [k for k in keys if k.rpartition(".")[2] == key]
            if where in keys:
                return f"{where}: unknown key in this form; {did_you_mean(key, fields)}"
            if places:
                return f"{where}: unknown key here; say {' or '.join(places[:3])}"
            return f"{where}: unknown key; {did_you_mean(key, fields)}"
        if self.details["type"] == "missing":
            field = fields_by_key(root).get(where)
            meaning = f" ({field.description})" if field and field.description else ""
            return f"{where}: is missing{meaning}"
        if self.details["type"] == "union_tag_invalid":
            tags, tag = (self.details["ctx"][key] for key in ("expected_tags", "tag"))
            return f"{where}.format: must be one of {tags} (got {tag!r})"
        alternatives = (self.details, *self.others)
        first, *others = (d["msg"].removeprefix("Value error, ") for d in alternatives)
        message = " or ".join([first, *(text.removeprefix("Input should be ") for text in others)])
        value = self.details["input"]
        quotation = "" if isinstance(value, (dict, BaseModel)) else f" (got {reprlib.repr(value)})"
        return f"{where}: {message}{quotation}" if where else f"{message}{quotation}"


def _keep_likely_branches(problems: Sequence[Problem], start: int = 0) -> list[Problem]:
    """Return, of each union's errors, those of the branch that the writer most likely meant.

    Pydantic reports errors of every branch. The likeliest branch is the one whose error lies
    deepest, and among those the one with the fewest errors; equally likely single errors are
    merged into one. Locations are looked at from index ``start`` on.
    """
    likely: list[Problem] = []
    unions: dict[tuple[str, ...], dict[str, list[Problem]]] = {}
    for problem in problems:
        places = range(start, len(problem.location))
        branch = next((k for k in places if problem.is_branch(k)), None)
        if branch is None:
            likely.append(problem)
        else:
            union = unions.setdefault(problem.location[:branch], {})
            union.setdefault(problem.location[branch], []).append(problem)
    for prefix, branches in unions.items():
        candidates = [
            _keep_likely_branches(errors, len(prefix) + 1) for errors in branches.values()
        ]
        depth = max(len(p.shown) for branch in candidates for p in branch)
        deepest = [branch for branch in candidates if max(len(p.shown) for p in branch) == depth]
        fewest = [branch for branch in deepest if len(branch) == min(map(len, deepest))]
        first, *equals = fewest
        if len(first) == 1 and all(branch[0].shown == first[0].shown for branch in equals):
            others = [d for branch in equals for d in (branch[0].details, *branch[0].others)]
            first = [replace(first[0], others=(*first[0].others, *others))]
        likely += first
    return likely


def _fields_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """Return the field names of the record at a location inside ``model``, sorted."""
    candidates: list[type[BaseModel]] = []
    tags: dict[str, type[BaseModel]] = {}
    for part in location:
        if part in tags:
            model, tags = tags[part], {}
            continue
        model = next((c for c in candidates if c.__name__ == part), model)
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
    fields = {name: _tags(field.annotation) for name, field in record.model_fields.items()}
    return {name: tags for name, tags in fields.items() if tags}


def _tags(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return a tagged union's records by tag; empty for any other annotation."""
    return {
        tag.tag: branch
        for branch, *metadata in (get_args(one) or (one,) for one in get_args(annotation))
        for tag in metadata
        if isinstance(tag, Tag)
    }
