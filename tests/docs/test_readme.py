"""What the README shows is what happens: its code runs with the other pages', in test_pages."""

from __future__ import annotations

import re

import pytest
from docs.generate.readme import README

from amnesis.discovery.entry import KINDS
from amnesis.discovery.registry import default_registry

TEXT = README.read_text(encoding="utf-8")
# A line of the table of names: | objectives | `ga`, ... |
ROWS = dict(re.findall(r"^\| (\w+) \| (`.*`) \|$", TEXT, re.MULTILINE))


@pytest.mark.parametrize("kind", KINDS)
def test_every_builtin_name_is_listed_and_no_other(kind: str) -> None:
    names = {
        entry.name
        for entry in default_registry()
        if entry.kind == kind and entry.plugin.distribution == "amnesis" and not entry.alias_of
    }
    assert set(re.findall(r"`([\w-]+)`", ROWS[f"{kind}s"])) == names


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 130


def test_the_plugin_takes_twenty_lines() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    code = [line for line in block.splitlines() if line.strip()]
    assert len(code) <= 20
