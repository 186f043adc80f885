"""The wheel, made of the sdist and installed where no checkout is: it holds all, and it works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amnesis.discovery.registry import default_registry

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = [
    ROOT / name for name in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
]
# hatchling leaves out of a wheel what git ignores.
DOCUMENTS = ("pyproject.toml", "README.md", "LICENSE", ".gitignore")


def _run(*line: Any, cwd: Path) -> str:
    """Run a program as a new user would, and return what it prints."""
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("PYTHON")}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HOME": str(cwd)}
    done = subprocess.run(
        [*map(str, line)], capture_output=True, text=True, env=environment, cwd=cwd, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _files(package: Path) -> Iterator[Path]:
    """Yield what a package is made of: code, and the templates and data beside it."""
    for path in package.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of a copy of what the packages are made of."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        to = source / package.relative_to(ROOT)
        shutil.copytree(package, to, ignore=shutil.ignore_patterns("__pycache__"))
    for name in DOCUMENTS:
        shutil.copy(ROOT / name, source)
    _run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", cwd=source)
    (built,) = (source / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the sdist alone makes, as an index's users without a wheel get it."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", cwd=source)
    (built,) = (source / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel, and our dependencies to import."""
    folder = tmp_path_factory.mktemp("elsewhere") / "environment"
    _run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin/python"
    install = "--isolated install --quiet --disable-pip-version-check --no-index --no-deps"
    line = ["-m", "pip", "--python", python, *install.split(), wheel]
    _run(sys.executable, *line, cwd=folder.parent)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file comes after the environment's own, and .pth files there are not read:
    # an editable amnesis among the dependencies is not imported.
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("\n".join(sorted(dependencies)))
    return python.parent


def test_every_file_is_in_the_sdist_and_nothing_else(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    packed = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in _files(package)}
    assert inside == {*packed, *DOCUMENTS, "PKG-INFO"}


def test_every_file_of_the_packages_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    files = {
        path.relative_to(package.parent).as_posix()
        for package in PACKAGES
        for path in _files(package)
    }
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        leaks = [name for name in inside if os.fsencode(ROOT) in archive.read(name)]
    assert {name for name in inside if ".dist-info/" not in name} == files
    assert {f"{package.name}/py.typed" for package in PACKAGES} <= inside
    assert leaks == []


def test_what_is_imported_is_the_wheels(programs: Path, tmp_path: Path) -> None:
    code = """
import amnesis, amnesis_evaluation, amnesis_plugins
from importlib.metadata import distribution, entry_points

print(amnesis.__file__, amnesis_evaluation.__file__, amnesis_plugins.__file__, sep="\\n")
print(distribution("amnesis").locate_file(""))
for point in entry_points(group="amnesis"):
    if point.dist.name == "amnesis":
        print(point.dist.locate_file(""))
"""
    places = _run(programs / "python", "-c", code, cwd=tmp_path).splitlines()
    assert len(places) == 4 + len(PROJECT["project"]["entry-points"]["amnesis"])
    assert [place for place in places if not place.startswith(str(programs.parent))] == []


def test_it_says_its_version(programs: Path, tmp_path: Path) -> None:
    said = _run(programs / "amnesis", "--version", cwd=tmp_path)
    assert said == f"amnesis {PROJECT['project']['version']}\n"


def test_it_lists_what_the_checkout_lists(programs: Path, tmp_path: Path) -> None:
    listed = json.loads(_run(programs / "amnesis", "plugins", "--json", cwd=tmp_path))
    registry = default_registry()
    assert listed["faults"] == []
    assert sorted((one["kind"], one["name"]) for one in listed["components"]) == sorted(
        (entry.kind, entry.name) for entry in registry
    )


def test_a_command_that_is_imported_when_called_is_there(programs: Path, tmp_path: Path) -> None:
    assert "RECIPE" in _run(programs / "amnesis", "run", "--help", cwd=tmp_path)


def test_a_component_can_be_made(programs: Path, tmp_path: Path) -> None:
    code = "import amnesis; print(amnesis.create('objective', 'npo'))"
    assert _run(programs / "python", "-c", code, cwd=tmp_path).startswith("beta=")
