"""The little Markdown that generated pages are made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

_ARXIV = re.compile(r"(?<![\w./])(?:arXiv[: ]\s*)?(\d{4}\.\d{5})(?![\w.]*\d)")
_ROLE = re.compile(r":\w+:`~?\.?([^`]+)`")
_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_LONG = 60  # characters of a default, beyond which it is told by its kind


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; its cells are Markdown, in which a bar outside of code is escaped."""
    lines = [_row(heads), "|" + "---|" * len(heads)]
    return "\n".join([*lines, *(_row(row) for row in rows)]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()) for cell in cells) + " |"


def filled(text: str, name: str, content: str) -> str:
    """Return a text with what stands between ``<!-- generated: name -->`` and its end exchanged.

    Raises:
        ValueError: the text does not have that place once.
    """
    start, end = f"<!-- generated: {name} -->\n", "<!-- end -->"
    before, *rest = text.split(start)
    if len(rest) != 1:
        raise ValueError(f"{start.strip()} stands {len(rest)} times in the page, not once")
    _, found, after = rest[0].partition(end)
    if not found:
        raise ValueError(f"{start.strip()} has no {end}")
    return f"{before}{start}{content}{end}{after}"


def code(text: str) -> str:
    """Return a text as code; an empty one stays empty."""
    if not text:
        return ""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"


def linked(text: str) -> str:
    """Return a text in which every number of arXiv is a link."""
    return _ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def prose(docstring: str) -> str:
    """Return a docstring as Markdown: references by role become code, arXiv numbers links."""
    text = _ROLE.sub(r"`\1`", docstring)
    parts: list[str] = []
    end = 0
    for match in _CODE.finditer(text):  # what stands in code is left as it is
        parts += [linked(_escaped(text[end : match.start()])), code(match[2].strip())]
        end = match.end()
    return "".join([*parts, linked(_escaped(text[end:]))])


def _escaped(text: str) -> str:
    return re.sub(r"([*_<|\[\]])", r"\\\1", text)


def default_of(record: dict[str, Any]) -> str:
    """Return what a field is where nothing is said, as a cell."""
    if record["required"]:
        return "required"
    value = record["default"]
    if isinstance(value, list) and len(str(value)) > _LONG:
        return f"{len(value)} texts"
    if isinstance(value, str) and len(value) > _LONG:
        return code(f"{value[: _LONG - 1]}…".replace("\n", " "))
    return code(_yaml(value))


def _yaml(value: Any) -> str:
    """Return a value as a recipe would say it on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return repr(value).strip("'") if isinstance(value, str) else str(value)
