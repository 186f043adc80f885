"""The plugin that CONTRIBUTING.md writes, installed and used as it says."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import amnesis
from amnesis import contracts
from amnesis.discovery.manager import HOOKS, build_manager
from amnesis.discovery.registry import Registry
from amnesis.runs.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "CONTRIBUTING.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What a component derives from: the bases that no other contract derives from, and a rule that does.
_CONTRACTS = [vars(contracts)[name] for name in contracts.__all__]
_COMPONENTS = [c for c in _CONTRACTS if isinstance(c, type) and issubclass(c, contracts.Component)]
BASES = [
    base
    for base in _COMPONENTS
    if base is contracts.ProjectionCombiner
    or not any(issubclass(other, base) for other in _COMPONENTS if other is not base)
]

pytestmark = pytest.mark.skipif(not GUIDE.exists(), reason="CONTRIBUTING.md is not in this tree")


def _section(title: str = "Write a plugin") -> str:
    return GUIDE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


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
    assert {base.__name__ for base in BASES} <= named
    assert named <= {*contracts.__all__, "SetsBenchmark"}


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


# -- every kind ---------------------------------------------------------------------------------


def _sources() -> list[str]:
    """Return the blocks of Python that show a component of every kind, the first plugin's first."""
    shown = _section() + _section("Every kind of component, in code")
    blocks = [text for language, text in FENCE.findall(shown) if language == "python"]
    return [text for text in blocks if not text.startswith("# test_")]


@pytest.fixture(scope="module")
def shown() -> dict[str, type[contracts.Component]]:
    """The components that the guide shows, by the names that they are registered by below."""
    names: dict[str, Any] = {"__name__": "every_kind"}
    for block in _sources():
        exec(compile(block, GUIDE.name, "exec"), names)  # noqa: S102
    mine = [c for c in names.values() if getattr(c, "__module__", "") == "every_kind"]
    classes = [c for c in mine if isinstance(c, type)]
    return {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", c.__name__).lower(): c for c in classes}


KIND_OF = {
    contracts.TermBase: "objective",
    contracts.Combiner: "combiner",
    contracts.Perturbation: "perturbation",
    contracts.Weight: "weight",
    contracts.Procedure: "procedure",
    contracts.Probe: "probe",
    contracts.Metric: "metric",
    contracts.Benchmark: "benchmark",
    contracts.Attack: "attack",
    contracts.Report: "report",
}


def _kind(component: type[contracts.Component]) -> str:
    (kind,) = {kind for base, kind in KIND_OF.items() if issubclass(component, base)}
    return kind


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_every_base_is_shown_in_code(base: type, shown: dict[str, type]) -> None:
    assert any(issubclass(component, base) for component in shown.values())


def test_what_is_shown_describes_itself(shown: dict[str, Any]) -> None:
    for name, component in shown.items():
        assert component.__doc__, name
        assert not component.__abstractmethods__, name
        assert component.source or name in ("plain", "floored_ascent", "first_token"), name
        for field in component.model_fields.values():
            assert field.description, name


@pytest.fixture
def registry(shown: dict[str, Any], install: Any) -> Registry:
    """What is installed, and a plugin with everything that the guide shows."""
    source = "\n".join(re.sub(r"(?s)\n@amnesis\.hookimpl.*", "\n", b) for b in _sources())
    for kind in KIND_OF.values():
        ours = [name for name, component in shown.items() if _kind(component) == kind]
        source += f"\n@amnesis.hookimpl\ndef register_{kind}s(register):\n"
        for name in ours:
            source += f"    register({name!r}, {shown[name].__name__}, summary='shown')\n"
    install("every_kind", source)
    return Registry(build_manager())


def test_everything_that_is_shown_works_in_a_run(
    registry: Registry, tiny_folder: Path, tmp_path: Path
) -> None:
    assert list(registry.faults) == []
    common: dict[str, Any] = {
        "model": str(tiny_folder),
        "benchmark": "capitals",
        "template": {"max_length": 64},
        "evaluate": {"metrics": ["first_token", "best_known", "gap"], "bootstrap": 0},
    }
    trained = {"training": {"steps": 2, "batch_size": 1}, "probes": ["opposition"]}
    weighted = {"name": "floored_ascent", "weight": {"name": "once_and_for_all"}}
    recipes: dict[str, dict[str, Any]] = {
        "projected": {
            "objective": ["confusion", weighted],
            "regularizer": "nll",
            "combiner": {"name": "forget_in_mlps", "combiner": "equal_lengths"},
            "robust": "uphill",
            "attacks": ["shaken"],
            **trained,
        },
        "metric": {
            "objective": "pausing_ascent",
            "regularizer": "kl",
            "combiner": "steady_sum",
            "robust": {"name": "reminded", "layer": 0},
            **trained,
        },
        "elementwise": {"objective": "ga", "regularizer": "nll", "combiner": "larger", **trained},
        "procedure": {"procedure": "one_long_step"},
    }
    for name, recipe in recipes.items():
        out = tmp_path / name
        results = amnesis.run(common | recipe, out, device="cpu", registry=registry).results
        assert results.before is not None
        assert results.after is not None
        assert {"forget/first_token", "retain/best_known", "gap"} <= results.after.keys()
        assert results.after != results.before
        if name != "procedure":
            opposed = [step["opposition/steps"] for step in results.trajectory]
            assert opposed[0] in (0.0, 1.0)
            assert opposed[1] - opposed[0] in (0.0, 1.0)
        assert "forget/first_token" in (out / "values.txt").read_text(encoding="utf-8")
    attacked = json.loads((tmp_path / "projected" / "results.json").read_text(encoding="utf-8"))
    assert "shaken" in attacked["attacks"]


def test_the_benchmark_that_is_shown_is_checked_before_a_weight_is_loaded(
    shown: dict[str, Any], tiny_tokenizer: Any
) -> None:
    settings = contracts.EvaluationSettings(metrics=("truth_ratio",))
    with pytest.raises(contracts.RecipeError, match="perturbed_answer"):
        shown["capitals"]().check(settings, amnesis.Template(), tiny_tokenizer)


def test_the_other_kinds_that_are_shown_work(
    shown: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown["lost"]().value(0.75, 0.25) == 0.5
    amnesis.Results(after={"forget/probability": 0.25, "retain/probability": 1.0}).write(tmp_path)
    names: dict[str, Any] = {}
    exec("\n".join(_sources()), names)  # noqa: S102
    names["left"](tmp_path)
    assert capsys.readouterr().out == "forget/probability: 0.250\n"


# -- what to claim, where things live, releases ----------------------------------------------------


def test_the_test_that_is_shown_holds(shown: dict[str, Any]) -> None:
    from tests.properties import claims, combiners

    def naive(rule: Any, f: list[list[float]], r: list[list[float]]) -> list[list[float]]:
        def one(a: float, b: float) -> float:
            return float(rule.gamma * a if abs(a) > abs(b) else rule.alpha * b)

        return [[one(*p) for p in zip(*rows, strict=True)] for rows in zip(f, r, strict=True)]

    (block,) = [
        text
        for _, text in FENCE.findall(_section("Bring a method into this repository"))
        if "SUBJECTS" in text
    ]
    names = {**vars(combiners), "hold": claims.hold, "naive": naive, "Larger": shown["larger"]}
    exec(block, names)  # noqa: S102
    for subject in names["SUBJECTS"]:
        for claim in names["CLAIMS"]:
            claim(subject)


@pytest.mark.parametrize("family", ["term", "combiner", "perturbation"])
def test_every_property_that_can_be_claimed_is_named(family: str) -> None:
    tree = ast.parse((ROOT / f"tests/properties/{family}s.py").read_text(encoding="utf-8"))
    claims = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and node.args.args
        and node.args.args[0].arg == family
        and isinstance(node.returns, ast.Constant)
        and not node.name.startswith("_")
    }
    assert len(claims) >= 6
    section = _section("Bring a method into this repository")
    (row,) = [line for line in section.splitlines() if line.startswith(f"| {family} ")]
    named = set(re.findall(r"`(\w+)`", row))
    assert named - {"agrees_with"} == claims


def test_the_rooms_are_those_that_the_contracts_hold() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    floors = {
        contract["containers"][0]: [set(re.findall(r"\w+", layer)) for layer in contract["layers"]]
        for contract in project["tool"]["importlinter"]["contracts"]
        if "containers" in contract
    }
    section = _section("Where things live: the rooms and their floors")
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    core = [set(re.findall(r"`(\w+)`", row)) for row in rows]
    of_core = [floor - {"__main__"} for floor in floors["amnesis"] if floor != {"__main__"}]
    assert [room for row in core for room in sorted(row)] == [
        room for floor in _joined(of_core, core) for room in sorted(floor)
    ]
    (line,) = [text for text in section.splitlines() if text.startswith("Evaluation has floors")]
    evaluation = [set(re.findall(r"`(\w+)`", part)) for part in line.split(" > ")]
    assert evaluation == floors["amnesis_evaluation"]


def _joined(floors: list[set[str]], rows: list[set[str]]) -> list[set[str]]:
    """Return the floors, those in one where the guide's table names them in one row."""
    joined: list[set[str]] = []
    for floor in floors:
        row = next(row for row in rows if row & floor)
        if joined and row & joined[-1]:
            joined[-1] = joined[-1] | floor
        else:
            joined.append(set(floor))
    return joined


def test_every_block_of_python_is_one_that_these_tests_run() -> None:
    blocks = [
        text for language, text in FENCE.findall(GUIDE.read_text("utf-8")) if language == "python"
    ]
    run = [text for text in blocks if text in _sources() or text.startswith("# test_")]
    assert blocks == run
