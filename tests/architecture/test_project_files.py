"""What stands beside the code says the same as pyproject.toml, and names what is there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import amnesis

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKED_PYTHON = "3.11"  # constraints.txt and requirements.lock are of it


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_citation_is_of_this_version() -> None:
    citation: dict[str, Any] = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"] == amnesis.__version__
    assert citation["license"] == PROJECT["license"]
    assert [one["name"] for one in citation["authors"]] == [a["name"] for a in PROJECT["authors"]]
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        (arxiv,) = [one["value"].removeprefix("arXiv:") for one in reference["identifiers"]]
        assert f"arXiv {arxiv}" in read("docs/papers.md")


def test_the_conda_environment_installs_what_everybody_installs() -> None:
    environment = yaml.safe_load(read("environment.yml"))
    assert environment["name"] == PROJECT["name"]
    *conda, pip = environment["dependencies"]
    assert conda == [f"python={LOCKED_PYTHON}", "pip"]
    required = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, LOCKED_PYTHON.split("."))) >= tuple(map(int, required.split(".")))
    (constraint, (flag, what)) = [shlex.split(line) for line in pip["pip"]]
    assert constraint == ["--constraint", "constraints.txt"]
    assert flag == "-e"
    check_extras(what)
    assert f"for Python {LOCKED_PYTHON} " in read("constraints.txt").splitlines()[0]


def check_extras(what: str) -> None:
    """Hold ``.[a,b]`` to name extras that there are."""
    match = re.fullmatch(r"\.(?:\[([\w,]+)\])?", what)
    assert match is not None, what
    extras = set((match[1] or "").split(",")) - {""}
    assert extras <= PROJECT["optional-dependencies"].keys()


# -- the container's file: nothing here can build it, so each line is held to what it relies on ----


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, each with its arguments."""
    lines = read("Dockerfile").replace("\\\n", " ").splitlines()
    words = [line.split(maxsplit=1) for line in lines if line.strip() and line[0] != "#"]
    return [(name, rest) for name, rest in words]


def test_the_container_copies_what_the_wheel_is_made_of() -> None:
    wheel = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = {
        source
        for name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    assert {package.partition("/")[0] for package in wheel["packages"]} <= copied
    assert {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml"} <= copied
    sent = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert sent == copied, ".dockerignore lets through what the Dockerfile copies"


def test_the_container_installs_what_was_tested() -> None:
    lines = instructions()
    images = [rest.split()[0] for name, rest in lines if name == "FROM"]
    assert set(images) == {f"python:{LOCKED_PYTHON}-slim"}
    installs = [rest for name, rest in lines if name == "RUN" and "pip install" in rest]
    torch, package = installs
    assert "$(grep '^torch==' constraints.txt)" in torch
    assert len(re.findall(r"^torch==\S+$", read("constraints.txt"), re.MULTILINE)) == 1
    words = shlex.split(package)
    assert words[:4] == ["pip", "install", "--constraint", "constraints.txt"]
    check_extras(words[4])


def test_the_container_runs_without_rights() -> None:
    names = [name for name, _ in instructions()]
    last = dict(instructions()[names.index("FROM", names.index("FROM") + 1) :])
    assert last["USER"] == "amnesis"
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert last["ENTRYPOINT"] == '["amnesis"]'
    assert "amnesis" in PROJECT["scripts"]


# -- hosted CI, the Makefile ------------------------------------------------------------------


def test_hosted_ci_runs_what_everybody_runs_and_nothing_else() -> None:
    (path,) = (ROOT / ".github/workflows").iterdir()
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    used = [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step]
    assert used == ["actions/checkout", "actions/setup-python"]
    assert job["steps"][1]["with"]["python-version"] == LOCKED_PYTHON
    assert workflow["permissions"] == {"contents": "read"}
    assert (ROOT / ".ci/run").stat().st_mode & 0o100
    assert "secrets" not in path.read_text(encoding="utf-8")


def test_templates_of_issues_have_their_front_matter() -> None:
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.md"):
        _, front, body = path.read_text(encoding="utf-8").split("---\n", 2)
        assert {"name", "about"} <= yaml.safe_load(front).keys(), path
        assert body.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the files that the Makefile compares, no older than any stamp."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    return tmp_path


def would_run(checkout: Path, target: str) -> str:
    line = ["make", "--no-print-directory", "--dry-run", target]  # these tests may run in a make
    done = subprocess.run(line, cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_demo_installs_the_package_alone(checkout: Path) -> None:
    said = would_run(checkout, "demo")
    assert "-e '.' -c constraints.txt" in said
    assert "[dev]" not in said
    assert "touch .venv/.package" in said
    assert "-e '.[dev]' -c constraints.txt" in would_run(checkout, "test")


@pytest.mark.parametrize("stamp", [".package", ".installed"])
def test_the_demo_installs_nothing_where_all_is_there(checkout: Path, stamp: str) -> None:
    (checkout / ".venv" / stamp).touch()
    assert would_run(checkout, "demo") == ".venv/bin/amnesis demo\n"


def test_every_target_that_is_documented_is_one(checkout: Path) -> None:
    table = re.findall(r"`make ([\w-]+)", read("CONTRIBUTING.md") + read("README.md"))
    phony = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    assert phony is not None
    assert set(table) <= set(phony[1].split())
    shutil.copytree(ROOT / ".ci", checkout / ".ci", ignore=shutil.ignore_patterns("__pycache__"))
    for target in set(table):
        would_run(checkout, target)
