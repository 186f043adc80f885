"""What is kept between runs, to be looked at and deleted: ``amnesis cache``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from amnesis.errors import RecipeError, did_you_mean


def cache(
    name: Annotated[
        str | None, typer.Argument(help="Only the model whose fingerprint begins so.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete instead of listing.")] = False,
) -> None:
    """List or delete reference scores and evaluations that earlier commands computed."""
    from rich.table import Table

    from amnesis.cli.terminal import console

    root = cache_folder()
    if delete:
        console().print(f"{delete_entries(root, name) / 1e6:.1f} MB deleted from {root}")
        return
    table = Table("kind", "model or evaluation", "files", "MB", title=str(root))
    for entry in cache_entries(root):
        if name is None or entry.name.startswith(name):
            table.add_row(entry.kind, entry.name, str(entry.files), f"{entry.size / 1e6:.1f}")
    console().print(table)


def cache_folder() -> Path:
    """Return the user's cache folder for amnesis; for use at the command line's edge."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "amnesis"


@dataclass(frozen=True)
class CacheEntry:
    """What is kept under one name: a model's ``reference`` scores, or one ``evaluation``."""

    kind: str
    name: str
    path: Path
    files: int
    size: int


def cache_entries(root: Path) -> Iterator[CacheEntry]:
    """Yield what is in the cache, kind by kind."""
    for kind in sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else ():
        for path in sorted(kind.iterdir()):
            files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
            name = path.name if path.is_dir() else path.stem
            yield CacheEntry(kind.name, name, path, len(files), _size(files))


def delete_entries(root: Path, name: str | None) -> int:
    """Delete the entries whose name begins so, or all; return the number of bytes freed.

    Raises:
        RecipeError: there is no entry of that name.
    """
    entries = list(cache_entries(root))
    chosen = [entry for entry in entries if name is None or entry.name.startswith(name)]
    if name is not None and not chosen:
        raise RecipeError(
            f"nothing in {root} is called {name!r}; {did_you_mean(name, (e.name for e in entries))}"
        )
    for entry in chosen:
        if entry.path.is_dir() and not entry.path.is_symlink():
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink()
    return sum(entry.size for entry in chosen)


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)
