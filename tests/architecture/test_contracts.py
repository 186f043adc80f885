"""The import contracts hold, and break where somebody walks through a wall."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the sources and their contracts, to be spoilt."""
    for name in ("core", "plugins", "evaluation"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(house: Path) -> subprocess.CompletedProcess[str]:
    sources = os.pathsep.join(str(house / name) for name in ("core", "plugins", "evaluation"))
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=house,
        env={**os.environ, "PYTHONPATH": sources},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_house_as_it_stands_keeps_every_contract(house: Path) -> None:
    done = lint(house)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("core/amnesis/scratch.py", '"""A room that has no floor."""', "The rooms of the core"),
        (
            "plugins/amnesis_plugins/objectives/ga.py",
            "from amnesis.training import settings",
            "Methods are written as a stranger would",
        ),
        (
            "evaluation/amnesis_evaluation/metrics/perplexity.py",
            "from amnesis.scoring import scores",
            "Methods are written as a stranger would",
        ),
        ("core/amnesis/data/files.py", "from amnesis.runs import cost", "The rooms of the core"),
        (
            "core/amnesis/contracts/term.py",
            "import amnesis_plugins.objectives.ga",
            "Nothing reaches back",
        ),
    ],
)
def test_whoever_walks_through_a_wall_is_named(
    house: Path, file: str, line: str, contract: str
) -> None:
    place = house / file
    before = place.read_text(encoding="utf-8") if place.exists() else ""
    place.write_text(f"{before}\n{line}\n", encoding="utf-8")
    done = lint(house)
    assert done.returncode == 1
    broken = [text for text in done.stdout.splitlines() if text.endswith(" BROKEN")]
    assert any(name.startswith(contract) for name in broken), done.stdout
