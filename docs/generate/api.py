"""The pages of the public API: every name that a public face hands on, from its docstring."""

from __future__ import annotations

import importlib

# The public faces, with what each is for.
FACES = {
    "amnesis": "For who runs.",
    "amnesis.contracts": "For who writes a plugin: the one import that it needs.",
    "amnesis.cli": "For who brings a command.",
    "amnesis_evaluation.benchmarks": "For who brings a benchmark: the base of its sets.",
    "amnesis_plugins.g_effect": "For who measures gradients.",
}


def pages() -> dict[str, str]:
    """Return the page of each face by its address."""
    return {f"reference/api/{face}.md": _page(face) for face in FACES}


def names(face: str) -> list[str]:
    """Return the names that a face hands on."""
    return sorted(importlib.import_module(face).__all__)


def _page(face: str) -> str:
    shown = [f"# {face}\n", f"{FACES[face]}\n"]
    return "\n".join([*shown, *(f"::: {face}.{name}\n" for name in names(face))])
