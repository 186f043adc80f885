"""What is kept between runs, to be looked at and deleted: ``amnesis cache``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amnesis.errors import RecipeError, did_you_mean


def cache_folder() -> Path:
    """Give the user's cache folder for amnesis; for use at the command line's edge."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "amnesis"


@dataclass(frozen=True)
class Kept:
    """What is kept under one name: a model's ``reference`` scores, or one judgement."""

    kind: str
    name: str
    path: Path
    files: int
    size: int


def kept(root: Path) -> Iterator[Kept]:
    """Give what is in the cache, kind by kind."""
    for kind in sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else ():
        for path in sorted(kind.iterdir()):
            files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
            name = path.name if path.is_dir() else path.stem
            yield Kept(kind.name, name, path, len(files), _size(files))


def forget(root: Path, name: str | None) -> int:
    """Delete the entries called ``name``, or all; give the number of bytes that were freed.

    Raises:
        RecipeError: there is no entry of that name.
    """
    entries = list(kept(root))
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


def cache_command(root: Path, delete: bool, name: str | None) -> None:
    """What ``amnesis cache`` does: list, or delete."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if delete:
        console.print(f"{forget(root, name) / 1e6:.1f} MB deleted from {root}")
        return
    table = Table("kind", "model or judgement", "files", "MB", title=str(root))
    for entry in kept(root):
        if name is None or entry.name.startswith(name):
            table.add_row(entry.kind, entry.name, str(entry.files), f"{entry.size / 1e6:.1f}")
    console.print(table)


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)
