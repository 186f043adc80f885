"""What ``amnesis plugins`` shows, in any width."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

import amnesis
from amnesis.cli.plugins import described, listed, show_plugins
from amnesis.config.keys import type_text
from amnesis.contracts import LikelihoodTerm
from amnesis.discovery.manager import Plugin, build_manager
from amnesis.discovery.registry import Registry, default_registry
from amnesis.errors import PluginError


class Shown(LikelihoodTerm):
    """Nothing but a description.

    With [brackets] and :colons:, which are not markup.
    """

    formula: ClassVar[str] = "a[0] · :b:"
    source: ClassVar[str] = "nobody"

    needed: int
    bounded: float = Field(0.5, gt=0, le=1, description="a share, [0, 1]")
    many: tuple[str, ...] = Field(("a",), min_length=1)
    made: list[int] = Field(default_factory=lambda: [1, 2])
    where: Path | None = None

    def terms(self, logps: Any, mask: Any, ref_logps: Any = None) -> Any:
        return logps


class Undocumented(LikelihoodTerm):
    def terms(self, logps: Any, mask: Any, ref_logps: Any = None) -> Any:
        return logps


class _Given:
    @staticmethod
    @amnesis.hookimpl
    def register_objectives(register: amnesis.Register) -> None:
        register("shown", Shown, summary="shown [here]")
        register("undocumented", Undocumented, summary="says nothing")
        register("both", Shown, summary="as an objective")
        register("lost", "nowhere_at_all:Lost", summary="cannot be loaded")

    @staticmethod
    @amnesis.hookimpl
    def register_regularizers(register: amnesis.Register) -> None:
        register("both", Undocumented, summary="as a regularizer")
        raise RuntimeError("half done")


@pytest.fixture
def registry() -> Registry:
    return Registry(build_manager([], modules=[Plugin(_Given, "here", "tests", "1.2")]))


def _shown(registry: Registry, capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    show_plugins(registry, *arguments, as_json=False)
    return capsys.readouterr().out


def _json(registry: Registry, capsys: pytest.CaptureFixture[str], *arguments: Any) -> Any:
    show_plugins(registry, *arguments, as_json=True)
    return json.loads(capsys.readouterr().out)


def test_json_lists_names_and_faults(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    document = _json(registry, capsys, None, None)
    assert [(c["kind"], c["name"]) for c in document["components"]] == [
        ("objective", "both"),
        ("objective", "lost"),
        ("objective", "shown"),
        ("objective", "undocumented"),
        ("regularizer", "both"),
    ]
    assert document["components"][1] == {
        "kind": "objective",
        "name": "lost",
        "summary": "cannot be loaded",
        "distribution": "tests",
        "version": "1.2",
        "entry_point": "here",
        "target": "nowhere_at_all:Lost",
    }
    (fault,) = document["faults"]
    assert fault["distribution"] == "tests"
    assert fault["message"].endswith("failed with RuntimeError: half done; repair it")


def test_json_of_one_component_says_everything(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    (component,) = _json(registry, capsys, "shown", None)["components"]
    assert component["formula"] == "a[0] · :b:"
    assert component["source"] == "nobody"
    assert component["docstring"].startswith("Nothing but a description.\n\nWith [brackets]")
    path, _, line = component["origin"].rpartition(":")
    assert Path(path) == Path(__file__)
    assert Path(path).read_text().splitlines()[int(line) - 1].startswith("class Shown")
    fields = {one.pop("name"): one for one in component["hyper_parameters"]}
    assert fields["needed"] == {
        "type": "int",
        "required": True,
        "default": None,
        "constraints": [],
        "description": "",
    }
    assert fields["bounded"] == {
        "type": "float",
        "required": False,
        "default": 0.5,
        "constraints": ["> 0", "≤ 1"],
        "description": "a share, [0, 1]",
    }
    assert fields["many"]["constraints"] == ["at least 1 long"]
    assert fields["many"]["type"] == "tuple[str, ...]"
    assert fields["made"]["default"] == [1, 2]
    assert fields["where"]["type"] == "Path | None"


def test_a_contract_s_docstring_is_not_taken_for_a_component_s(registry: Registry) -> None:
    assert described(registry.get("objective", "undocumented"))["docstring"] == ""


def test_a_description_is_not_padded_to_the_width(
    registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is a terminal the width is thousands of columns."""
    monkeypatch.delenv("COLUMNS", raising=False)
    show_plugins(registry, "shown", None, as_json=False)
    assert "    a share, [0, 1]\n" in capsys.readouterr().out


def test_a_name_of_several_kinds_shows_each(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    text = _shown(registry, capsys, "both", None)
    assert "objective both" in text
    assert "regularizer both" in text
    only = _json(registry, capsys, "both", "regularizer")["components"]
    assert [c["kind"] for c in only] == ["regularizer"]


@pytest.mark.parametrize("width", [30, 45, 80, 200])
def test_names_are_whole_in_every_width(
    registry: Registry,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    width: int,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = _shown(registry, capsys, None, None)
    for entry in registry:
        assert entry.name in text
    assert "[here]" in "".join(text.split("\n")).replace(" ", "")
    assert "half done" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= width
    detail = _shown(registry, capsys, "shown", None)
    for wanted in ("bounded: float = 0.5", "needed: int (required)", "a[0] · :b:", "[brackets]"):
        assert wanted in " ".join(detail.split())


def test_wide_lists_name_the_distribution(
    registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    (line,) = [
        row for row in _shown(registry, capsys, None, None).splitlines() if "says nothing" in row
    ]
    assert line.split()[-2:] == ["tests", "1.2"]


def test_unknown_names_and_kinds_are_refused(registry: Registry) -> None:
    with pytest.raises(PluginError, match="no plugin component is called 'shwn'; did you mean"):
        show_plugins(registry, "shwn", None, as_json=False)
    with pytest.raises(PluginError, match=r"no regularizer is called 'shown'; .*available: both"):
        show_plugins(registry, "shown", "regularizer", as_json=False)
    with pytest.raises(PluginError, match="'metrics'; did you mean 'metric'"):
        show_plugins(registry, None, "metrics", as_json=True)
    with pytest.raises(PluginError, match="'nowhere_at_all:Lost' failed"):
        show_plugins(registry, "lost", None, as_json=True)


def test_a_kind_that_nobody_brings_is_said_to_be_empty(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _shown(registry, capsys, None, "attack").startswith("none is registered")


@pytest.mark.parametrize("entry", list(default_registry()), ids=str)
def test_every_installed_component_can_be_described(entry: Any) -> None:
    record = described(entry)
    assert json.loads(json.dumps(record)) == record
    assert listed(entry).items() <= record.items()
    assert Path(record["origin"].rpartition(":")[0]).is_file()


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (bool, "bool"),
        (int | None, "int | None"),
        (Literal["labels", "all"], "'labels' | 'all'"),
        (list[int], "list[int]"),
        (tuple[float, float], "tuple[float, float]"),
        (None, "None"),
        (type(None), "None"),
        (Colour, "Colour"),
        (Any, "Any"),
        (Annotated[int, Field(ge=1)] | Literal["auto"], "int ≥ 1 | 'auto'"),
        (dict[str, list[int] | None], "dict[str, list[int] | None]"),
        (Mapping[str, Colour], "Mapping[str, Colour]"),
    ],
)
def test_types_are_written_as_people_write_them(annotation: Any, text: str) -> None:
    assert type_text(annotation) == text
