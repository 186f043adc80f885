"""Make a release: sdist and wheel of the commit that is checked out, into a folder.

    python .ci/release.py [dist]

It is refused where git knows of a change or a file that is not committed, where the commit lacks
the tag ``vVERSION``, where two files name different versions, or where CHANGELOG.md has nothing on
that version, or something that is unreleased. Everything is made from the commit and nothing from
the working tree: the sdist from what git archives, the wheel from the sdist. The wheel is installed
in an environment of its own, which must find every entry point. Nothing is uploaded.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Where a version stands beside pyproject.toml, and how.
STATED = {
    "core/amnesis/__init__.py": re.compile(r'^__version__ = "(.*)"$', re.MULTILINE),
    "CITATION.cff": re.compile(r"^version: (.*)$", re.MULTILINE),
}


def output(*line: str, cwd: Path = ROOT, **more: str) -> str:
    """Return what a program prints; what it complains of goes to the terminal."""
    done = subprocess.run(  # noqa: S603  # our own words
        line, cwd=cwd, env=os.environ | more, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def section(changelog: str, title: str) -> str:
    """Return what a changelog says under ``## [title]``, without the headings within."""
    parts = re.split(rf"^## \[{re.escape(title)}\].*$", changelog, flags=re.MULTILINE)
    text = re.split(r"^## ", parts[1], flags=re.MULTILINE)[0] if len(parts) == 2 else ""
    return re.sub(r"^###.*$", "", text, flags=re.MULTILINE).strip()


def problems(version: str) -> Iterator[str]:
    """Yield all that stands against a release of ``version`` from this commit."""
    changed = output("git", "status", "--porcelain").splitlines()
    if changed:
        yield f"{len(changed)} files are not as committed, such as {changed[0].split()[-1]}"
    tags = output("git", "tag", "--points-at", "HEAD").split()
    if f"v{version}" not in tags:
        found = f"its tags are {', '.join(tags)}" if tags else "it has no tag"
        yield f"this commit is not tagged v{version}: {found}"
    for name, pattern in STATED.items():
        match = pattern.search((ROOT / name).read_text(encoding="utf-8"))
        if match is None or match[1] != version:
            other = match[1] if match else "none"
            yield f"{name} has version {other}, pyproject.toml {version}"
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not section(changelog, version):
        yield f"CHANGELOG.md has nothing under [{version}]"
    if section(changelog, "Unreleased"):
        yield "CHANGELOG.md has lines under [Unreleased]: they belong to a version"


def build(folder: Path) -> list[Path]:
    """Return the sdist of the commit and the wheel of the sdist, built in an empty folder."""
    # Archives whose files carry the commit's time are the same whenever they are built.
    time = {"SOURCE_DATE_EPOCH": output("git", "log", "-1", "--format=%ct")}
    source, unpacked = folder / "source", folder / "unpacked"
    source.mkdir()
    output("git", "archive", "--output", str(folder / "source.tar"), "HEAD")
    extract(folder / "source.tar", source)
    output(sys.executable, "-m", "hatchling", "build", "-t", "sdist", cwd=source, **time)
    (sdist,) = (source / "dist").iterdir()
    extract(sdist, unpacked)
    (within,) = unpacked.iterdir()
    output(sys.executable, "-m", "hatchling", "build", "-t", "wheel", cwd=within, **time)
    (wheel,) = (within / "dist").iterdir()
    return [sdist, wheel]


def extract(archive: Path, folder: Path) -> None:
    """Unpack an archive of our own."""
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")


def check_wheel(wheel: Path, folder: Path, project: dict[str, object]) -> None:
    """Install a wheel where nothing else is, and refuse one that does not say what it brings.

    Raises:
        ValueError: version or entry points are not the project's.
    """
    venv.create(folder, with_pip=False)
    python = str(folder / "bin" / "python")
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    output(sys.executable, "-m", "pip", "--python", python, *install)
    code = (
        "import sys; from importlib.metadata import distribution as d; p = d(sys.argv[1]); "
        "print(p.version, *sorted(e.name for e in p.entry_points if e.group == 'amnesis'))"
    )
    points = project.get("entry-points", {}).get("amnesis", {})
    expected = " ".join([str(project["version"]), *sorted(points)])
    installed = output(python, "-c", code, str(project["name"]), cwd=folder)
    if installed != expected:
        raise ValueError(f"{wheel.name} installs {installed}, not {expected}")


def main(to: Path) -> int:
    """Build what may be released, or say all that stands against it; return the exit code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = list(problems(project["version"]))
    if found:
        print(*(f"no release: {problem}" for problem in found), sep="\n", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch:
        built = build(Path(scratch))
        check_wheel(built[1], Path(scratch) / "environment", project)
        to.mkdir(parents=True, exist_ok=True)
        for file in built:
            shutil.copy(file, to)
            print(hashlib.sha256(file.read_bytes()).hexdigest(), to / file.name)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "dist")))
    except (ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"no release: {error}")
