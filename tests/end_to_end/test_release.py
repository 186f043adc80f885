"""The release script, in a repository of its own: what it refuses, and what it builds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "release.py"
FILES = {
    "pyproject.toml": """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "small"
version = "1.2.3"
requires-python = ">=3.11"

[project.entry-points.amnesis]
core = "amnesis"

[tool.hatch.build.targets.wheel]
packages = ["core/amnesis"]
""",
    "core/amnesis/__init__.py": '"""Small."""\n\n__version__ = "1.2.3"\n',
    "CITATION.cff": "cff-version: 1.2.0\nversion: 1.2.3\n",
    "CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n\n## [1.2.3]\n\n### Added\n- All of it.\n",
    ".gitignore": "/dist/\n/secret.txt\n",
    "core/amnesis/notes.txt": "kept\n",
}
Release = Callable[[], subprocess.CompletedProcess[str]]


def git(repository: Path, *words: str) -> None:
    settings = (
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@example.invalid",
        "-c",
        "tag.gpgSign=false",
    )
    line = ["git", *settings, *words]
    subprocess.run(line, cwd=repository, check=True, capture_output=True)


def commit(repository: Path) -> None:
    git(repository, "add", "--all")
    git(repository, "-c", "commit.gpgSign=false", "commit", "--message", "all")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clean repository whose one commit is tagged as its version."""
    folder = tmp_path / "small"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / ".ci").mkdir()
    shutil.copy(SCRIPT, folder / ".ci")
    git(folder, "init", "--initial-branch", "main")
    commit(folder)
    git(folder, "tag", "--annotate", "v1.2.3", "--message", "1.2.3")
    return folder


@pytest.fixture
def release(repository: Path) -> Release:
    """Return a function that runs the script in the repository."""

    def release() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, ".ci/release.py"], cwd=repository, capture_output=True, text=True
        )

    return release


def test_it_builds_from_the_commit_and_nothing_else(repository: Path, release: Release) -> None:
    (repository / "secret.txt").write_text("ignored by git, and by the archives")
    (repository / "core/amnesis/__pycache__").mkdir()
    done = release()
    assert done.returncode == 0, done.stderr
    assert [line.split()[1].rpartition("/")[2] for line in done.stdout.splitlines()] == [
        "small-1.2.3.tar.gz",
        "small-1.2.3-py3-none-any.whl",
    ]
    with tarfile.open(repository / "dist/small-1.2.3.tar.gz") as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert {*FILES, ".ci/release.py", "PKG-INFO"} == inside
    with zipfile.ZipFile(repository / "dist/small-1.2.3-py3-none-any.whl") as wheel:
        assert {"amnesis/__init__.py", "amnesis/notes.txt"} <= set(wheel.namelist())
    first = {file.name: file.read_bytes() for file in (repository / "dist").iterdir()}
    os.utime(repository / "core/amnesis/notes.txt", (0, 0))
    assert release().returncode == 0
    assert {file.name: file.read_bytes() for file in (repository / "dist").iterdir()} == first


def rewrite(file: str, old: str, new: str) -> Callable[[Path], None]:
    """Return what commits a changed file, and moves the tag there."""

    def change(repository: Path) -> None:
        path = repository / file
        assert old in path.read_text(encoding="utf-8")
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        commit(repository)
        git(repository, "tag", "--force", "v1.2.3")

    return change


def tagged_otherwise(repository: Path) -> None:
    git(repository, "tag", "v1.2.4")
    git(repository, "tag", "--delete", "v1.2.3")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda r: (r / "core/amnesis/notes.txt").write_text("changed"),
            "1 files are not as committed, such as core/amnesis/notes.txt",
        ),
        (lambda r: (r / "new.py").write_text(""), "1 files are not as committed, such as new.py"),
        (
            lambda r: git(r, "tag", "--delete", "v1.2.3"),
            "this commit is not tagged v1.2.3: it has no tag",
        ),
        (
            tagged_otherwise,
            "this commit is not tagged v1.2.3: its tags are v1.2.4",
        ),
        (
            rewrite("core/amnesis/__init__.py", "1.2.3", "1.2.2"),
            "core/amnesis/__init__.py has version 1.2.2, pyproject.toml 1.2.3",
        ),
        (
            rewrite("CITATION.cff", "version: 1.2.3", "url: none"),
            "CITATION.cff has version none, pyproject.toml 1.2.3",
        ),
        (
            rewrite("CHANGELOG.md", "## [1.2.3]", "## [1.2.30]"),
            "CHANGELOG.md has nothing under [1.2.3]",
        ),
        (
            rewrite("CHANGELOG.md", "[Unreleased]\n", "[Unreleased]\n\n### Added\n- More.\n"),
            "CHANGELOG.md has lines under [Unreleased]: they belong to a version",
        ),
    ],
)
def test_it_says_what_stands_against_a_release(
    change: Callable[[Path], object], said: str, repository: Path, release: Release
) -> None:
    change(repository)
    done = release()
    assert done.returncode == 1
    assert done.stderr == f"no release: {said}\n"
    assert not (repository / "dist").exists()


def test_all_that_stands_against_it_is_said_at_once(repository: Path, release: Release) -> None:
    rewrite("CITATION.cff", "version: 1.2.3", "version: 1")(repository)
    git(repository, "tag", "--delete", "v1.2.3")
    (repository / "new.py").write_text("")
    assert release().stderr.count("no release: ") == 3


def test_where_there_is_no_repository_it_says_so_in_a_line(
    repository: Path, release: Release
) -> None:
    shutil.rmtree(repository / ".git")
    done = release()
    assert done.returncode == 1
    assert "no release: Command" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
