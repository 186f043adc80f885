"""Plugins written into a folder, with the metadata that an installer would write."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from textwrap import dedent

import pytest

Install = Callable[..., list[EntryPoint]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Give a function that installs a module as a distribution and gives its entry points."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def install(module: str, source: str, *, version: str = "1.0") -> list[EntryPoint]:
        distribution = module.replace("_", "-")
        (site / f"{module}.py").write_text(dedent(source))
        metadata = site / f"{module}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (metadata / "entry_points.txt").write_text(f"[amnesis]\n{module}_entry = {module}\n")
        importlib.invalidate_caches()
        found = Distribution.discover(name=distribution, path=[str(site)])
        return [point for one in found for point in one.entry_points]

    yield install
    for name in set(sys.modules) - before:
        if (site / f"{name.partition('.')[0]}.py").exists():
            del sys.modules[name]
