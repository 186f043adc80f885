"""A stranger's package: installed for real, listed, run, and broken in every way."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import amnesis
from amnesis.data.examples import encode_rows
from amnesis.data.templates import Template
from amnesis.discovery.manager import build_manager, installed_entry_points
from amnesis.discovery.registry import Registry
from amnesis.errors import ContractError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/plugin"
PACKAGE = "amnesis_plugin_example"
OWNER = "amnesis-plugin-example 0.1.0, entry point 'example'"
COMPONENTS = (
    ("objective", "logit_margin"),
    ("combiner", "agreement"),
    ("perturbation", "half_relearned"),
    ("weight", "until_forgotten"),
    ("procedure", "retain_only"),
    ("metric", "first_token"),
)
Edits = Mapping[str, tuple[str, str]]
Python = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the example."""
    folder = tmp_path_factory.mktemp("third-party")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    install = "pip install --quiet --disable-pip-version-check --no-index --no-deps"
    isolated = [*install.split(), "--no-build-isolation", "--no-compile", "--target"]
    done = subprocess.run(
        [sys.executable, "-m", *isolated, str(folder / "site"), str(folder / "source")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """Return a function that runs Python with a folder of plugins before everything else."""

    def python(plugins: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(plugins),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "1",
        }
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=300,
        )

    return python


def _broken(site: Path, folder: Path, edits: Edits) -> Path:
    """Copy the installed package and replace text in its files."""
    shutil.copytree(site, folder)
    for file, (old, new) in edits.items():
        path = folder / PACKAGE / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r} to break"
        path.write_text(text.replace(old, new))
    return folder


def test_it_is_small_and_uses_public_names_only() -> None:
    for path in (EXAMPLE / PACKAGE).glob("[!_]*.py"):
        assert sum(bool(line.strip()) for line in path.read_text().splitlines()) <= 36, path
    for path in EXAMPLE.rglob("*.py"):
        assert _imported_of_ours(path) <= {"amnesis", "amnesis.contracts"}, path
    named = re.findall(r"\bamnesis(?:_\w+)?(?:\.\w+)+", (EXAMPLE / "README.md").read_text())
    assert set(named) == {"amnesis.contracts"}


def _imported_of_ours(path: Path) -> set[str]:
    """Return the modules of amnesis's distribution that a file imports, anywhere in it."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    ours = ("amnesis", "amnesis_plugins", "amnesis_evaluation")
    return {module for module in modules if module.partition(".")[0] in ours}


def test_its_own_tests_pass(site: Path, python: Python) -> None:
    tests = EXAMPLE / "tests"
    done = python(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tests, tests)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_it_is_listed_and_described(site: Path, python: Python) -> None:
    listed = json.loads(python(site, "-m", "amnesis", "plugins", "--json").stdout)
    theirs = [
        (c["kind"], c["name"], c["version"])
        for c in listed["components"]
        if c["distribution"] == "amnesis-plugin-example"
    ]
    assert theirs == [(kind, name, "0.1.0") for kind, name in COMPONENTS]
    shown = python(site, "-m", "amnesis", "plugins", "agreement", "--json")
    (component,) = json.loads(shown.stdout)["components"]
    assert component["source"] == "Mansilla et al. 2021, arXiv 2108.01621"
    assert {one["name"] for one in component["hyper_parameters"]} == {"gamma", "alpha"}
    assert Path(component["origin"].rpartition(":")[0]) == site / PACKAGE / "agreement.py"


# -- in a run -----------------------------------------------------------------------------------


CHOSEN = ("objective=logit_margin", "combiner=agreement")


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path, qa_rows: Any) -> Path:
    document = {
        "model": str(tiny_folder),
        "objective": "ga",
        "regularizer": "nll",
        "combiner": "sum",
        "benchmark": {"name": "own", "forget": qa_rows[:4], "retain": qa_rows[4:]},
        "training": {"steps": 12, "batch_size": 4, "learning_rate": 0.02, "schedule": "constant"},
        "evaluate": {"metrics": ["first_token", "probability"], "bootstrap": 0},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_it_trains_and_evaluates_in_a_run(
    site: Path, python: Python, recipe: Path, tmp_path: Path, qa_rows: Any
) -> None:
    assert f"amnesis run RECIPE.yaml {' '.join(CHOSEN)}" in (EXAMPLE / "README.md").read_text()
    line = ("-m", "amnesis", "run", recipe, *CHOSEN, "--out", tmp_path / "out", "--device", "cpu")
    done = python(site, *line)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["steps"] == 12
    losses = [step["forget/loss"] for step in results["trajectory"]]
    assert all(loss >= 0 for loss in losses)
    assert losses[-1] < losses[0] / 2
    for name, rows in (("forget", qa_rows[:4]), ("retain", qa_rows[4:])):
        begun_right = _begins_right(tmp_path / "out/model", rows)
        assert results["after"][f"{name}/first_token"] == sum(begun_right) / 4
    assert any(begun_right), "a dozen steps of retaining should have taught one beginning"


def _begins_right(folder: Path, rows: Any) -> list[bool]:
    """Say of each row whether a model's likeliest token after the prompt begins the answer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    encoded = encode_rows(rows, AutoTokenizer.from_pretrained(folder), Template()).examples
    answers = [example.sequences["answer"] for example in encoded]
    return [
        model(torch.tensor([a.input_ids[: a.prompt_length]])).logits[0, -1].argmax().item()
        == a.input_ids[a.prompt_length]
        for a in answers
    ]


THEIRS = {"objective": "logit_margin", "regularizer": "nll", "combiner": "agreement"}
OURS = {"objective": "wga", "regularizer": "kl", "combiner": "sago"}


@pytest.fixture
def fit(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Any, tiny_tokenizer: Any, qa_rows: Any
) -> Iterator[Callable[..., tuple[str | None, bool]]]:
    """Return a function that trains here with a folder's plugins, and says how it went."""

    def fit(plugins: Path, choices: Mapping[str, Any]) -> tuple[str | None, bool]:
        monkeypatch.syspath_prepend(str(plugins))
        theirs = [p for d in Distribution.discover(path=[str(plugins)]) for p in d.entry_points]
        registry = Registry(build_manager([*installed_entry_points(), *theirs]))
        before = [p.detach().clone() for p in tiny_llama.parameters()]
        training = {"steps": 3, "batch_size": 2, "learning_rate": 1e-3}
        said = None
        try:
            amnesis.Unlearner(
                tiny_llama,
                tiny_tokenizer,
                **choices,
                training=training,
                device="cpu",
                registry=registry,
            ).fit(qa_rows[:4], qa_rows[4:])
        except ContractError as error:
            said = str(error)
        pairs = zip(before, tiny_llama.parameters(), strict=True)
        return said, any(not torch.equal(old, new) for old, new in pairs)

    yield fit
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_it_trains_in_python(site: Path, fit: Any) -> None:
    assert fit(site, THEIRS) == (None, True)


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        pytest.param(
            {
                "logit_margin.py": (
                    "return scores.unpack(margins.squeeze(-1))",
                    "return scores.logits.new_zeros(2)",
                )
            },
            [f"objective 'logit_margin' ({OWNER})", "must have the shape (2, ", "they have (2,)"],
            id="terms of a wrong shape",
        ),
        pytest.param(
            {"logit_margin.py": ("Needs(logits=True)", "Needs(logps=True)")},
            [f"objective 'logit_margin' ({OWNER})", "reads 'logits' without declaring it"],
            id="an undeclared score",
        ),
        pytest.param(
            {"agreement.py": (".masked_fill_(conflict, 0)", ".masked_fill_(conflict, 0).sum()")},
            [f"combiner 'agreement' ({OWNER})", "must keep shape", "but gave ()"],
            id="a combination of a wrong shape",
        ),
        pytest.param(
            {"agreement.py": ("class Agreement(ElementwiseCombiner)", "class Agreement")},
            [
                f"combiner 'agreement' ({OWNER})",
                "is not a subclass of amnesis.contracts.Combiner; derive it from that class",
            ],
            id="not a subclass",
        ),
        pytest.param(
            {"agreement.py": ("def combine_tensor", "def combine_tensors")},
            [f"combiner 'agreement' ({OWNER})", "does not implement combine_tensor; define"],
            id="unfinished",
        ),
    ],
)
def test_a_broken_contract_stops_the_run_before_a_weight_moves(
    site: Path, tmp_path: Path, fit: Any, edits: Edits, said: list[str]
) -> None:
    message, moved = fit(_broken(site, tmp_path / "broken", edits), THEIRS)
    assert message is not None
    assert "\n" not in message
    for part in said:
        assert part in message
    assert not moved


def test_a_broken_contract_is_one_line_on_the_command_line(
    site: Path, tmp_path: Path, python: Python, recipe: Path
) -> None:
    edit = ("return scores.unpack(margins.squeeze(-1))", "return margins.sum()")
    broken = _broken(site, tmp_path / "broken", {"logit_margin.py": edit})
    line = ("-m", "amnesis", "run", recipe, *CHOSEN, "--out", tmp_path / "out", "--device", "cpu")
    done = python(broken, *line, "evaluate.limit=1")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: objective 'logit_margin' ({OWNER}) is averaged over tokens")


# -- discovery ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        pytest.param(
            {"__init__.py": ("import amnesis\n", "import amnesis\nimport not_there_at_all\n")},
            "importing 'amnesis_plugin_example' failed with ModuleNotFoundError: No module named "
            "'not_there_at_all'; repair it, reinstall it, or uninstall amnesis-plugin-example",
            id="failing import",
        ),
        pytest.param(
            {"__init__.py": ("def register_objectives(", "def register_objektives(")},
            "implements an unknown hook 'register_objektives'; "
            "did you mean 'register_objectives'? rename the function",
            id="misspelt hook",
        ),
        pytest.param(
            {"__init__.py": ("register_combiners(register:", "register_combiners(registry:")},
            "hook 'register_combiners' takes one argument, 'register', but is defined with "
            "(registry: amnesis.discovery.hookspecs.Register) -> None; "
            "write def register_combiners(register)",
            id="wrong argument",
        ),
    ],
)
def test_a_plugin_that_fails_to_load_stops_only_the_runs_that_name_it(
    site: Path, tmp_path: Path, python: Python, edits: Edits, said: str
) -> None:
    broken = _broken(site, tmp_path / "broken", edits)
    listed = python(broken, "-m", "amnesis", "plugins", "--json")
    assert listed.returncode == 0, listed.stderr
    document = json.loads(listed.stdout)
    assert {c["distribution"] for c in document["components"]} == {"amnesis"}
    assert [f["message"] for f in document["faults"]] == [f"plugin {OWNER}: {said}"]
    table = python(broken, "-m", "amnesis", "plugins")
    assert table.returncode == 0
    assert said in " ".join(table.stdout.split())
    creates = "import amnesis; amnesis.create('objective', {!r}); print('created')"
    assert python(broken, "-c", creates.format("wga")).stdout == "created\n"
    named = python(broken, "-c", creates.format("logit_margin"))
    assert named.returncode != 0
    message = named.stderr.strip().splitlines()[-1]
    assert "no objective is called 'logit_margin'" in message
    assert f"plugin {OWNER}: {said}" in message
    shown = python(broken, "-m", "amnesis", "plugins", "logit_margin")
    assert shown.returncode == 2
    assert shown.stderr.count("\n") == 1
    assert said in shown.stderr


def test_a_run_with_our_own_methods_ignores_a_broken_plugin(
    site: Path, tmp_path: Path, fit: Any
) -> None:
    broken = _broken(site, tmp_path / "broken", {"__init__.py": ("import amnesis\n", "1 / 0\n")})
    assert fit(broken, OURS) == (None, True)


CREATE = "import amnesis; print(amnesis.create({!r}, {!r}).label)"


def test_a_name_of_amnesis_stays_its_own(site: Path, tmp_path: Path, python: Python) -> None:
    taking = _broken(site, tmp_path / "taking", {"__init__.py": ('"logit_margin"', '"wga"')})
    listed = json.loads(python(taking, "-m", "amnesis", "plugins", "--json").stdout)
    (fault,) = listed["faults"]
    assert fault["message"] == (
        f"plugin {OWNER}: its objective 'wga' is amnesis's own; give it another name, "
        "or say 'amnesis-plugin-example:wga'"
    )
    owners = {(c["name"], c["distribution"]) for c in listed["components"]}
    assert ("wga", "amnesis") in owners
    assert ("wga", "amnesis-plugin-example") not in owners
    assert ("agreement", "amnesis-plugin-example") in owners, "its other names are in use"
    created = python(taking, "-c", CREATE.format("objective", "wga"))
    assert created.stdout.startswith("objective 'wga' (amnesis "), created.stderr


def _with_twin(site: Path, folder: Path) -> Path:
    """Copy the installed package, and beside it the same under another distribution's name."""
    twin = PACKAGE.replace("example", "twin")
    shutil.copytree(site, folder)
    shutil.copytree(folder / PACKAGE, folder / twin)
    metadata = folder / f"{twin}-0.1.0.dist-info"
    metadata.mkdir()
    name = twin.replace("_", "-")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text(f"[amnesis]\ntwin = {twin}\n")
    return folder


def test_a_duplicate_name_names_both_owners(site: Path, tmp_path: Path, python: Python) -> None:
    both = _with_twin(site, tmp_path / "both")
    other = "amnesis-plugin-twin 0.1.0, entry point 'twin'"
    faults = json.loads(python(both, "-m", "amnesis", "plugins", "--json").stdout)["faults"]
    names = {f"{kind} {name!r}" for kind, name in COMPONENTS}
    assert len(faults) == len(names)
    for name in names:
        (message,) = [fault["message"] for fault in faults if name in fault["message"]]
        assert OWNER in message
        assert other in message
        assert "neither can be used by that name" in message
    create = CREATE.format("objective", "logit_margin")
    refused = python(both, "-c", create)
    message = refused.stderr.strip().splitlines()[-1]
    assert "objective 'logit_margin' is registered by " in message
    assert OWNER in message
    assert other in message
    assert "--without-plugin" in message
    left_out = ("--without-plugin", "twin")
    kept = python(both, "-m", "amnesis", *left_out, "plugins", "logit_margin", "--json")
    (component,) = json.loads(kept.stdout)["components"]
    assert component["distribution"] == "amnesis-plugin-example"
    one_name = python(both, "-c", CREATE.format("combiner", "sago"))
    assert one_name.returncode == 0


def test_an_unknown_name_has_a_suggestion_from_a_third_party(site: Path, python: Python) -> None:
    done = python(site, "-m", "amnesis", "plugins", "logit_marg")
    assert done.returncode == 2
    assert "did you mean 'logit_margin'?" in done.stderr


def test_a_command_cannot_take_the_place_of_core_s(
    site: Path, tmp_path: Path, python: Python
) -> None:
    hook = (
        "\n\n@amnesis.hookimpl\ndef register_commands(register: amnesis.Register) -> None:\n"
        '    register("run", "json:dumps", summary="not yours")\n'
    )
    marker = '_HERE = "amnesis_plugin_example"\n'
    broken = _broken(site, tmp_path / "broken", {"__init__.py": (marker, marker + hook)})
    listed = json.loads(python(broken, "-m", "amnesis", "plugins", "--json").stdout)
    (fault,) = listed["faults"]
    assert fault["message"] == (
        f"plugin {OWNER}: its command 'run' is amnesis's own; give it another name, "
        "or say 'amnesis-plugin-example:run'"
    )
    assert "logit_margin" in [c["name"] for c in listed["components"]]
    named = "amnesis-plugin-example:run"  # the way to it, beside amnesis's own
    help_text = python(broken, "-m", "amnesis", "--help").stdout
    assert [
        line for line in help_text.splitlines() if "not yours" in line and named not in line
    ] == []
