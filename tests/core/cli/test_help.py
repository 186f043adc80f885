"""Help where people look for it, and what a shell completes."""

from __future__ import annotations

import pytest
from tests.core.strangers import registry_with, stranger

from amnesis.cli.app import main


def greet(name: str = "you") -> None:
    """Say hello."""


@pytest.mark.parametrize("command", ["run", "plugins", "probe", "greet"])
def test_help_says_what_the_option_says(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    registry = registry_with(stranger(command={"greet": greet}))
    said = []
    for line in ([command, "--help"], [command, "-h"], ["help", command]):
        assert main(line, registry=registry) == 0
        said.append(capsys.readouterr().out)
    assert said[0].startswith(f"Usage: amnesis {command} ")
    assert said == said[:1] * 3


def test_help_alone_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for line in (["--help"], ["-h"], ["help"], []):
        assert main(line) == 0
        said.append(capsys.readouterr().out.strip())
    assert said == said[:1] * 4
    assert main(["help", "rn"]) == 2
    assert "did you mean 'run'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "place", "said"),
    [
        ("amnesis pro", 1, ["probe"]),
        ("amnesis run --ov", 2, ["--overwrite"]),
        ("amnesis greet --na", 2, ["--name"]),
        ("amnesis zzz", 1, []),
    ],
)
def test_a_shell_is_told_what_could_come_next(
    words: str,
    place: int,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (("COMPLETE", "complete_bash"), ("WORDS", words), ("CWORD", str(place))):
        prefix = "_AMNESIS_" if name == "COMPLETE" else "COMP_"
        monkeypatch.setenv(f"{prefix}{name}", value)
    registry = registry_with(stranger(command={"greet": greet}))
    assert main([], registry=registry) == 0
    assert capsys.readouterr().out.split() == said
