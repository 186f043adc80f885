"""Print the lowest releases that pyproject.toml claims, one ``name==bound`` a line.

    python .ci/lowest.py > lowest.txt
    pip install -e '.[dev]' -c lowest.txt

They are the bounds of ``[project] dependencies`` and of every extra, ``dev`` among them, since the
tests need them all. A requirement of ours without a ``>=`` is an error: then nothing says what was
tested. pip takes the lines as constraints, so what none of ours names stays at its newest.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<extras>[^\]]*)\])?(?:>=(?P<bound>[\d.]+))?")


def pins(project: dict[str, object]) -> Iterator[str]:
    """Return the lowest release of everything that a ``[project]`` table requires.

    Raises:
        ValueError: a requirement is not ``name>=bound``, with or without extras.
    """
    extras = project.get("optional-dependencies", {})
    lines = [*project["dependencies"], *(one for lines in extras.values() for one in lines)]
    for line in lines:
        requirement = REQUIREMENT.fullmatch(line.replace(" ", ""))
        if requirement is None:
            raise ValueError(f"{line!r} is not of the form name>=bound")
        if requirement["name"] == project["name"]:
            continue  # an extra of ours that includes another
        if requirement["bound"] is None:
            raise ValueError(f"{line!r} has no lower bound")
        yield f"{requirement['name']}=={requirement['bound']}"


if __name__ == "__main__":
    try:
        print(*pins(tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]), sep="\n")
    except ValueError as error:
        sys.exit(f"{PROJECT.name}: {error}")
