"""``amnesis new-plugin``: what it writes installs, is listed, and passes its own tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from amnesis.cli.app import main
from amnesis.cli.new_plugin.command import KINDS, TEMPLATES
from amnesis.discovery.entry import KINDS as REGISTERED


def test_every_kind_that_the_hooks_know_has_templates() -> None:
    assert set(KINDS) == set(REGISTERED)
    written = {path.name.removesuffix(".py.j2") for path in (TEMPLATES / "kinds").iterdir()}
    assert written == {*KINDS, *(f"test_{kind}" for kind in KINDS)}


@pytest.mark.slow
def test_a_package_of_all_kinds_installs_is_listed_and_passes_its_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package, site = tmp_path / "their-methods", tmp_path / "site"
    assert main(["new-plugin", "their-methods", "--kinds", "all", "--out", str(package)]) == 0
    assert "pip install -e" in capsys.readouterr().out
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}

    def python(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=package
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    offline = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    python("-m", "pip", "install", *offline, "--target", str(site), str(package))
    listed = json.loads(python("-m", "amnesis", "plugins", "--json"))
    theirs = [c for c in listed["components"] if c["distribution"] == "their-methods"]
    assert {c["kind"]: c["name"] for c in theirs} == {k: f"their_methods_{k}" for k in KINDS}
    assert listed["faults"] == []
    tests = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(package / "tests"))
    assert f"{2 * len(KINDS) + 2} passed" in tests  # a regularizer's test has three cases


def test_the_summary_is_english(tmp_path: Path) -> None:
    out = tmp_path / "x"
    assert main(["new-plugin", "x", "--kinds", "objective,metric", "--out", str(out)]) == 0
    hooks = (out / "x" / "__init__.py").read_text(encoding="utf-8")
    assert '"an objective to begin with"' in hooks
    assert '"a metric to begin with"' in hooks


def test_some_kinds_alone_and_named_in_the_plural(tmp_path: Path) -> None:
    out = tmp_path / "x"
    assert main(["new-plugin", "x", "--kinds", "metrics,combiner", "--out", str(out)]) == 0
    files = {str(path.relative_to(out)) for path in out.rglob("*.*")}
    assert files == {
        "pyproject.toml", "README.md", "tests/test_registered.py", "x/__init__.py",
        "x/metric.py", "x/combiner.py", "tests/test_metric.py", "tests/test_combiner.py",
    }  # fmt: skip
    for path in out.rglob("*.py"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["x", "--kinds", "objectiv"],
            "--kinds: no kind of component is called 'objectiv'; did you",
        ),
        (["3 x"], "'3 x' is no package's name"),
        (["class"], "'class' is no package's name"),
        (["amnesis"], "'amnesis' is amnesis's own"),
        (["x", "--out", "taken"], "taken: is not empty"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years of work")
    assert main(["new-plugin", *words]) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*.*")] == ["thesis.txt"]
