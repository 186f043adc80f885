"""The part of the README that lists what there is, written between two marks."""

from __future__ import annotations

from pathlib import Path

from docs.generate.components import builtin
from docs.generate.markdown import filled, table

from amnesis.discovery.entry import KINDS
from amnesis.discovery.registry import default_registry

README = Path(__file__).resolve().parents[2] / "README.md"


def readme() -> str:
    """Return the README with its list of names as they are now."""
    return filled(README.read_text(encoding="utf-8"), "names", _names())


def _names() -> str:
    registry = default_registry()
    rows = []
    for kind in KINDS:
        names = [f"`{e.name}`" for e in builtin(registry, kind) if e.alias_of is None]
        rows.append([f"{kind}s", ", ".join(names)])
    return table(["kind", "names"], rows)
