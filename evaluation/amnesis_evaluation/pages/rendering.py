"""From templates to pages: one stylesheet, one script, and nothing that a page would load."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from amnesis.errors import printable
from amnesis_evaluation.pages import numbers

FOLDER = Path(__file__).parent / "templates"


def rendered(template: str, **content: Any) -> str:
    """Return the page that a template makes of its content, as one HTML text.

    Whatever is in the content is text: it is escaped, its control characters are shown, and the
    page's policy lets no script run but its own.
    """
    page: Template = _environment().get_template(template)
    style, script = stylesheet(), (FOLDER / "script.js").read_text(encoding="utf-8")
    return page.render(
        style=Markup(style),  # noqa: S704  # our own file
        script=Markup(script),  # noqa: S704  # our own file
        style_digest=_digest(style),
        script_digest=_digest(script),
        **content,
    )


@cache
def stylesheet() -> str:
    """Return the stylesheet of every page."""
    return (FOLDER / "style.css").read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": numbers.number,
        "data": numbers.data,
        "interval": numbers.interval,
        "minus": numbers.with_minus,
        "plain": plain,
    }
    return environment


def plain(value: object) -> str:
    """Return a text whose control characters are shown, but for line breaks."""
    return "\n".join(map(printable, str(value).split("\n")))


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
