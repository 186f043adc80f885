"""The command line: commands that are imported when they are called, options, and help."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.cli.lines import one_line, python
from tests.core.strangers import registry_with, stranger

import amnesis
from amnesis.cli.app import main
from amnesis.discovery.registry import Registry, default_registry
from amnesis.errors import PluginError

HEAVY = ("torch", "transformers", "datasets", "lm_eval", "peft", "scipy", "pandas", "matplotlib")


def greet(
    name: Annotated[str, typer.Argument(help="Whom.")] = "you",
    times: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Say hello."""
    print(" ".join([f"hello {name}"] * times))


def unreadable(what: tuple[dict[str, int], ...]) -> None:
    """Take what no command line can give."""


# -- nothing heavy ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["finetune", "--help"],
        ["cache", "--help"],
        ["audit", "--help"],
        ["init", "--help"],
        ["plugins"],
        ["plugins", "--json"],
        ["plugins", "sago"],
        ["plugins", "--kind", "objective"],
        ["--without-plugin", "commands", "--help"],
        ["no-such-command"],
    ],
    ids=" ".join,
)
def test_answers_at_once(line: list[str]) -> None:
    script = (
        "import json, sys\n"
        "from amnesis.cli.app import main\n"
        f"code = main({line!r})\n"
        "from amnesis.discovery.registry import default_registry\n"
        "entries = [e for e in default_registry() if e.kind == 'command']\n"
        "homes = {e.name: e.target.partition(':')[0] for e in entries}\n"
        f"asked = {{homes.pop(name) for name in {line!r} if name in homes}}\n"
        f"heavy = [m for m in [*{HEAVY!r}, *set(homes.values()) - asked] if m in sys.modules]\n"
        "print(); print(json.dumps([code, heavy]))"
    )
    done = python("-c", script)
    assert "Traceback" not in done.stderr
    code, heavy = json.loads(done.stdout.splitlines()[-1])
    assert code == (2 if line == ["no-such-command"] else 0)
    assert heavy == []


def test_help_lists_every_command_with_its_summary(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["--help"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    commands = [entry for entry in default_registry() if entry.kind == "command"]
    assert {"run", "finetune", "plugins", "cache"} <= {entry.name for entry in commands}
    for entry in commands:
        assert [entry.name, entry.summary] in lines


def test_without_a_word_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert main([]) == 0
    assert capsys.readouterr().out == text
    assert text.startswith("Usage: amnesis [OPTIONS] COMMAND")


# -- a plugin's commands ------------------------------------------------------------------------


def test_a_plugin_s_command_runs_with_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    registry = registry_with(stranger(command={"greet": greet}))
    assert main(["greet", "world", "--times", "2"], registry=registry) == 0
    assert capsys.readouterr().out == "hello world hello world\n"
    assert main(["greet", "--help"], registry=registry) == 0
    text = capsys.readouterr().out
    assert "Usage: amnesis greet" in text
    assert "Say hello." in text
    assert "Whom." in text


def test_a_listing_says_whose_a_command_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    registry = registry_with(stranger(command={"greet": greet, "lost": "nowhere_at_all:lost"}))
    assert main([], registry=registry) == 0
    text = capsys.readouterr().out
    assert "greet of a third party (third-party)\n" in text
    assert "lost of a third party (third-party)\n" in text
    assert f"{registry.get('command', 'run').summary}\n" in text  # whose is not said: its own


def test_a_command_that_cannot_be_imported_stops_only_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry = registry_with(stranger(command={"greet": greet, "lost": "nowhere_at_all:lost"}))
    assert main(["lost", "--help"], registry=registry) == 2
    said = one_line(capsys)
    assert "command 'lost' (third-party 1.0, entry point 'theirs'): loading" in said
    assert "No module named 'nowhere_at_all'" in said
    assert main(["greet"], registry=registry) == 0


def test_a_command_that_typer_cannot_read_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    registry = registry_with(stranger(command={"unreadable": unreadable}))
    assert main(["unreadable"], registry=registry) == 2
    said = one_line(capsys)
    assert "command 'unreadable' (third-party 1.0, entry point 'theirs')" in said
    assert "annotate its parameters" in said


def test_a_plugin_is_not_left_out_of_a_caller_s_own_registry(
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry = registry_with(stranger(command={"greet": greet}))
    assert main(["greet", "--without-plugin", "third-party"], registry=registry) == 2
    assert "--without-plugin third-party: this program brings a registry" in one_line(capsys)


def test_a_command_with_two_owners_is_listed_once_and_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry = registry_with(
        stranger("first", "one", command={"greet": greet}),
        stranger("second", "two", command={"greet": greet}),
    )
    assert main(["--help"], registry=registry) == 0
    assert capsys.readouterr().out.count("\n  greet ") == 1
    assert main(["greet"], registry=registry) == 2
    said = one_line(capsys)
    assert "by first 1.0, entry point 'one' and by second 1.0, entry point 'two'" in said


def test_a_stranger_s_command_of_amnesis_s_name_leaves_amnesis_s_in_use(
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry = registry_with(stranger(command={"plugins": greet, "greet": greet}))
    assert main(["plugins", "--json"], registry=registry) == 0
    document = json.loads(capsys.readouterr().out)
    (fault,) = (f for f in document["faults"] if f["distribution"] == "third-party")
    assert "its command 'plugins' is amnesis's own; give it another name" in fault["message"]
    assert main(["greet"], registry=registry) == 0


def test_an_unknown_command_has_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    registry = registry_with(stranger(command={"greet": greet}))
    assert main(["greett"], registry=registry) == 2
    said = one_line(capsys)
    assert said.startswith("error: no command is called 'greett'; did you mean 'greet'?")
    assert main(["plugin"], registry=registry) == 2
    assert "did you mean 'plugins'" in one_line(capsys)


# -- amnesis plugins ----------------------------------------------------------------------------


def test_plugins_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json", "--kind", "combiner"]) == 0
    names = [c["name"] for c in json.loads(capsys.readouterr().out)["components"]]
    assert {"sum", "pcgrad", "sago"} <= set(names)


def test_plugins_shows_the_registry_of_its_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry = registry_with(stranger(objective={"mine": "nowhere_at_all:Mine"}))
    assert main(["plugins", "--json", "--kind", "objective"], registry=registry) == 0
    names = [c["name"] for c in json.loads(capsys.readouterr().out)["components"]]
    assert names == registry.names("objective")
    assert "mine" in names
    assert "mine" not in default_registry().names("objective")


# -- options anywhere on the line -----------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "--without-plugin combiners plugins --json",
        "plugins --json --without-plugin combiners",
        "plugins --without-plugin=combiners --json",
    ],
)
def test_a_plugin_is_left_out_wherever_the_option_stands(
    capsys: pytest.CaptureFixture[str], line: str
) -> None:
    default = default_registry()
    assert main(line.split()) == 0
    kinds = {c["kind"] for c in json.loads(capsys.readouterr().out)["components"]}
    assert "combiner" not in kinds
    assert "objective" in kinds
    assert default_registry() is default
    assert "sago" in default_registry().names("combiner")  # for that one call only


def test_several_plugins_are_left_out_and_so_may_be_a_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["plugins", "--without-plugin", "combiners", "--json", "--without-plugin=probes"]
    assert main(line) == 0
    kinds = {c["kind"] for c in json.loads(capsys.readouterr().out)["components"]}
    assert not {"combiner", "probe"} & kinds
    assert main(["evaluate", "--help", "--without-plugin", "commands"]) == 2
    assert "left out: plugin amnesis" in one_line(capsys)


def run_line(words: list[str], registry: Registry | None = None) -> tuple[int, str, str]:
    """Return a line's exit code, and what it said on stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words, registry=registry)
    return code, out.getvalue(), err.getvalue()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4), st.integers(0, 4), st.booleans())
def test_global_options_may_stand_anywhere(debug: int, left_out: int, in_one_word: bool) -> None:
    """Before a command, after it, even between an option of it and that option's value."""
    words: list[list[str]] = [[word] for word in ("plugins", "--kind", "combiner", "sago")]
    option = ["--without-plugin=combiners"] if in_one_word else ["--without-plugin", "combiners"]
    words.insert(left_out, option)
    plain = [word for part in words for word in part]
    words.insert(debug + (debug > left_out), ["--debug"])
    code, out, err = run_line([word for part in words for word in part])
    assert (code, out) == (2, "")
    said = run_line(plain)[2]
    assert "no combiner is called 'sago'" in said
    assert "left out: plugin amnesis" in said
    assert err.startswith("Traceback")
    assert err.endswith(f"\n{said}")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "--b", "--", "--debug", ""])))
def test_global_options_are_taken_out_and_nothing_else_moves(words: list[str]) -> None:
    """What stands after ``--`` is the command's, whatever it looks like."""
    taken: list[Any] = []

    def echo(
        words: Annotated[list[str] | None, typer.Argument()] = None,
        b: Annotated[bool, typer.Option("--b")] = False,
    ) -> None:
        taken.append((words or [], b))
        raise PluginError("enough")

    registry = registry_with(stranger(command={"echo": echo}))
    end = words.index("--") if "--" in words else len(words)
    code, _, err = run_line(["echo", *words], registry)
    assert code == 2
    assert err.endswith("error: enough\n")
    rest = [word for word in words[:end] if not word.startswith("--")] + words[end + 1 :]
    assert taken == [(rest, "--b" in words[:end])]
    assert err.startswith("Traceback") == ("--debug" in words[:end])


WORDS = ["plugins", "objective", "wga", "pcgrad", "nope", "é", "-", "--", "-x", ""]
OPTIONS = ["help", "version", "json", "json=1", "kind", "kind=", "debug", "without-plugin"]


@settings(deadline=None)
@given(st.lists(st.sampled_from([*WORDS, *(f"--{option}" for option in OPTIONS)]), max_size=6))
def test_no_line_is_a_defect(words: list[str]) -> None:
    code, _, said = run_line(words)
    assert code in (0, 2)
    assert "defect" not in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run", "Missing argument 'RECIPE'; see 'amnesis run --help'"),
        ("run r.yaml --overwritte", "--overwritte"),
        ("plugins --kind", "Option '--kind' requires an argument; see 'amnesis "),
        ("--nonsense", "No such option: --nonsense; see 'amnesis --help'"),
        ("plugins a b", "unexpected extra argument"),
        ("plugins --without-plugin", "--without-plugin"),
        ("--without-plugin", "Option '--without-plugin' requires an argument"),
        ("--without-plugin nobody plugins", "no plugin 'nobody' is there to be left out; avail"),
        ("plugins --kind objectves", "no kind of component is called 'objectves'; did you mean"),
        ("plugins wgaa", "no plugin component is called 'wgaa'; did you mean 'wga'"),
    ],
)
def test_wrong_usage_is_one_line(capsys: pytest.CaptureFixture[str], line: str, said: str) -> None:
    assert main(line.split()) == 2
    message = one_line(capsys)
    assert message.startswith("error: ")
    assert said in message


# -- as a process -------------------------------------------------------------------------------


def test_the_module_and_the_script_are_the_same_command() -> None:
    module = python("-m", "amnesis", "--version")
    script = subprocess.run(
        [Path(sys.executable).with_name("amnesis"), "--version"], capture_output=True, text=True
    )
    assert (module.returncode, module.stdout) == (0, f"amnesis {amnesis.__version__}\n")
    assert (script.returncode, script.stdout) == (module.returncode, module.stdout)


def test_a_terminal_that_knows_ascii_only_is_no_error() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for line in (["plugins", "sago"], ["plugins", "sago", "--json"], ["--help"]):
        done = python("-m", "amnesis", *line, env=environment)
        assert done.returncode == 0, done.stderr
    document = json.loads(python("-m", "amnesis", "plugins", "sago", "--json").stdout)
    assert "γ" in document["components"][0]["formula"]
