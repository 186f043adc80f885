"""The plugin that CONTRIBUTING.md writes, installed and used as it says."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from amnesis import contracts
from amnesis.discovery.manager import HOOKS
from amnesis.runs.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "CONTRIBUTING.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not GUIDE.exists(), reason="CONTRIBUTING.md is not in this tree")


def _section() -> str:
    return GUIDE.read_text().split("\n## Write a plugin\n")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with every file that the section shows."""
    folder = tmp_path_factory.mktemp("my-unlearning")
    for _, block in FENCE.findall(_section()):
        first, _, rest = block.partition("\n")
        name = re.fullmatch(r"# ([\w.]+)", first)
        if name:
            (folder / name[1]).write_text(rest)
    return folder


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_named_with_its_argument(hook: str) -> None:
    assert f"`{hook}(register)`" in _section()


def test_every_contract_that_is_named_exists() -> None:
    table = [line for line in _section().splitlines() if line.startswith("| `register_")]
    named = {name for line in table for name in re.findall(r"`([A-Z]\w+)`", line)}
    assert len(named) >= 9
    assert named <= set(contracts.__all__)


def test_the_plugin_installs_is_listed_and_passes_its_test(written: Path, tmp_path: Path) -> None:
    install = "pip install --quiet --disable-pip-version-check --no-index --no-deps"
    isolated = [*install.split(), "--no-build-isolation", "--target"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    for arguments in (
        [*isolated, str(tmp_path), str(written)],
        ["amnesis", "plugins", "floored_ascent", "--json"],
        ["pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(written), str(written)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if arguments[0] == "amnesis":
            (component,) = json.loads(done.stdout)["components"]
            assert component["hyper_parameters"][0]["constraints"] == ["> 0", "< 1"]
    assert "2 passed" in done.stdout


def test_a_plugin_imports_the_public_faces_and_nothing_else(written: Path) -> None:
    tree = ast.parse((written / "my_unlearning.py").read_text(encoding="utf-8"))
    modules = {
        name
        for node in ast.walk(tree)
        for name in (
            [node.module]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    ours = {name for name in modules if str(name).startswith("amnesis")}
    assert ours == {"amnesis", "amnesis.contracts"}


def test_the_override_is_understood(tmp_path: Path) -> None:
    (shown,) = re.findall(r"amnesis run RECIPE.yaml '(objective=[^']+)'", _section())
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"model": "m", "objective": "ga", "benchmark": "tofu"}))
    recipe = Recipe.load(path, [shown])
    assert recipe.objective == {"name": "floored_ascent", "floor": 0.01}
