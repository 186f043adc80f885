"""The command line: commands that are imported when they are called, and one line for an error."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

import amnesis
from amnesis.cli import app as cli
from amnesis.cli import errors as complaints
from amnesis.cli.app import main
from amnesis.discovery.manager import Plugin, build_manager
from amnesis.discovery.registry import CORE_COMMANDS, Registry, default_registry
from amnesis.errors import AmnesisError, Interrupted, PluginError

HEAVY = ("torch", "transformers", "datasets", "lm_eval", "peft", "scipy", "pandas", "matplotlib")
Commands = Callable[..., None]


class PolicyError(AmnesisError):
    exit_code = 3


def greet(
    name: Annotated[str, typer.Argument(help="Whom.")] = "you",
    times: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Say hello."""
    print(" ".join([f"hello {name}"] * times))


def unreadable(what: tuple[dict[str, int], ...]) -> None:
    """Take what no command line can give."""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Return a function that makes ``{name: target}`` the commands of a third party's plugin."""

    def commands(distribution: str = "third-party", **targets: Any) -> None:
        module = ModuleType("third_party")

        def register_commands(register: amnesis.Register) -> None:
            for name, target in targets.items():
                register(name.replace("_", "-"), target, summary=f"{name} of a third party")

        module.register_commands = amnesis.hookimpl(register_commands)  # type: ignore[attr-defined]
        registry = Registry(build_manager([], [Plugin(module, "theirs", distribution, "1.0")]))
        for place in (cli, complaints):
            monkeypatch.setattr(place, "default_registry", lambda: registry)

    return commands


def _raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line on stderr."""
    captured = capsys.readouterr()
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1, captured.err
    return captured.err.strip()


def _python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, **options
    )


# -- nothing heavy ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["--help"],
        ["--version"],
        ["run", "--help"],
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
        "commands = default_registry().names('command')\n"
        "targets = [default_registry().get('command', c).target for c in commands]\n"
        "targets = [target.partition(':')[0] for target in targets]\n"
        f"heavy = [m for m in [*{HEAVY!r}, *targets] if m in sys.modules]\n"
        "print(); print(json.dumps([code, heavy]))"
    )
    done = _python("-c", script)
    assert "Traceback" not in done.stderr
    code, heavy = json.loads(done.stdout.splitlines()[-1])
    assert code == (2 if line == ["no-such-command"] else 0)
    assert heavy == []


def test_help_lists_every_command_with_its_summary(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in CORE_COMMANDS:
        assert f"\n  {name} " in text
    for entry in default_registry():
        if entry.kind == "command":
            assert entry.summary in text


def test_core_s_own_commands_are_the_reserved_ones() -> None:
    group = typer.main.get_command(cli.app)
    assert tuple(group.commands) == CORE_COMMANDS  # type: ignore[attr-defined]


# -- a plugin's commands ------------------------------------------------------------------------


def test_a_plugin_s_command_runs_with_its_arguments(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands(greet=greet)
    assert main(["greet", "world", "--times", "2"]) == 0
    assert capsys.readouterr().out == "hello world hello world\n"
    assert main(["greet", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: amnesis greet" in text
    assert "Say hello." in text
    assert "Whom." in text


def test_a_listing_says_whose_a_command_is(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands(greet=greet, lost="nowhere_at_all:lost")
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "greet of a third party (third-party)" in text
    assert "lost of a third party (third-party)" in text


def test_a_command_that_cannot_be_imported_stops_only_itself(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands(greet=greet, lost="nowhere_at_all:lost")
    assert main(["lost", "--help"]) == 2
    said = _said(capsys)
    assert "command 'lost' (third-party 1.0, entry point 'theirs'): loading" in said
    assert "No module named 'nowhere_at_all'" in said
    assert main(["greet"]) == 0


def test_a_command_that_typer_cannot_read_is_told(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands(unreadable=unreadable)
    assert main(["unreadable"]) == 2
    said = _said(capsys)
    assert "command 'unreadable' (third-party 1.0, entry point 'theirs')" in said
    assert "annotate its parameters" in said


def test_a_command_with_two_owners_is_listed_once_and_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def owned(distribution: str) -> Plugin:
        module = ModuleType(distribution)

        def register_commands(register: amnesis.Register) -> None:
            register("greet", greet, summary="hello")

        module.register_commands = amnesis.hookimpl(register_commands)  # type: ignore[attr-defined]
        return Plugin(module, distribution, distribution, "1")

    registry = Registry(build_manager([], [owned("first"), owned("second")]))
    monkeypatch.setattr(cli, "default_registry", lambda: registry)
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.count("greet") == 1
    assert main(["greet"]) == 2
    said = _said(capsys)
    assert "by first 1, entry point 'first' and by second 1, entry point 'second'" in said


def test_an_unknown_command_has_a_suggestion(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands(greet=greet)
    assert main(["gret"]) == 2
    said = _said(capsys)
    assert said.startswith("error: no command is called 'gret'; did you mean 'greet'?")
    assert main(["plugin"]) == 2
    assert "did you mean 'plugins'" in _said(capsys)


# -- core's commands ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "finetune"])
def test_run_and_finetune_hand_everything_over(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    seen: list[Any] = []
    fake = ModuleType("amnesis.cli.run")
    fake.recipe_command = lambda *a, **k: seen.append((a, k))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "amnesis.cli.run", fake)
    assert main([command, "recipe.yaml"]) == 0
    plain = {
        "resume": False,
        "overwrite": False,
        "check": False,
        "device": None,
        "trust_remote_code": False,
    }
    assert seen.pop() == ((command, Path("recipe.yaml"), [], None), plain)
    line = (
        f"{command} r.yaml training.steps=3 --out somewhere objective.beta=-1 --resume --overwrite "
        "--check --device cpu --trust-remote-code"
    )
    assert main(line.split()) == 0
    assert seen.pop() == (
        (command, Path("r.yaml"), ["training.steps=3", "objective.beta=-1"], Path("somewhere")),
        {**dict.fromkeys(plain, True), "device": "cpu"},
    )


def test_run_and_finetune_are_jobs_of_the_function_that_they_call() -> None:
    from inspect import signature

    from amnesis.cli.run import JOBS, recipe_command

    assert set(JOBS) == {"run", "finetune"}
    for command in (cli.run, cli.finetune):
        taken = set(signature(command).parameters)
        assert {"name", *taken} == set(signature(recipe_command).parameters)


def test_plugins_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json", "--kind", "combiner"]) == 0
    names = [c["name"] for c in json.loads(capsys.readouterr().out)["components"]]
    assert {"sum", "pcgrad", "sago"} <= set(names)


# -- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (AmnesisError("field 'x' of a.yaml is wrong; write y"), 2, "error: field 'x' of a.yaml"),
        (PolicyError("violated"), 3, "error: violated"),
        (typer.Exit(3), 3, None),
        (typer.BadParameter("no such file"), 2, "error: Invalid value: no such file; see 'amnesis"),
        (Interrupted("go on with --resume"), 130, "go on with --resume"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: No space left on device"),
    ],
    ids=repr,
)
def test_errors_are_one_line_and_a_code(
    commands: Commands,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str | None,
) -> None:
    commands(distribution="amnesis", fail=_raising(error))
    assert main(["fail"]) == code
    if said is None:
        assert capsys.readouterr().err == ""
    else:
        assert _said(capsys).startswith(said)


def test_a_defect_says_so_and_how_to_see_more(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands(distribution="amnesis", fail=_raising(ZeroDivisionError("two\nlines")))
    assert main(["fail"]) == 1
    said = _said(capsys)
    assert said.startswith("error: this is a defect of amnesis, please report it: ")
    assert "ZeroDivisionError: two lines (test_app.py:" in said
    assert said.endswith("--debug shows the traceback")


def test_a_third_party_s_failure_is_not_called_ours(
    tmp_path: Path,
    commands: Commands,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "their_code.py").write_text(
        "import json\n"
        "def theirs(): json.loads('{')\n"
        "def ours(): import amnesis.manager; amnesis.discovery.manager.build_manager(3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    commands(theirs="their_code:theirs", ours="their_code:ours")
    assert main(["theirs"]) == 2
    said = _said(capsys)
    assert said.startswith("error: plugin third-party 1.0, entry point 'theirs' failed with JSON")
    assert main(["ours"]) == 1  # what it called in amnesis is amnesis's to check
    assert "this is a defect of amnesis" in _said(capsys)
    monkeypatch.delitem(sys.modules, "their_code")


@pytest.mark.parametrize(
    "line",
    [["--debug", "fail"], ["fail", "--debug"]],
    ids=" ".join,
)
def test_debug_shows_the_traceback_wherever_it_stands(
    commands: Commands, capsys: pytest.CaptureFixture[str], line: list[str]
) -> None:
    commands(fail=_raising(PluginError("wrong")))
    assert main(line) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("\nerror: wrong\n")


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
    message = _said(capsys)
    assert message.startswith("error: ")
    assert said in message


# -- globals ------------------------------------------------------------------------------------


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
    assert main(line.split()) == 0
    kinds = {c["kind"] for c in json.loads(capsys.readouterr().out)["components"]}
    assert "combiner" not in kinds
    assert "objective" in kinds
    assert "sago" in default_registry().names("combiner")  # for that one call only


@given(st.lists(st.sampled_from(["a", "--b", "--", "--debug", "-x", "--without-plugin=p", ""])))
def test_globals_are_taken_out_and_nothing_else_moves(words: list[str]) -> None:
    end = words.index("--") if "--" in words else len(words)
    line, debug, left_out = cli._split_globals(list(words))
    before = [w for w in words[:end] if w not in ("--debug", "--without-plugin=p")]
    assert line == before + words[end:]
    assert debug == ("--debug" in words[:end])
    assert left_out == ["p"] * words[:end].count("--without-plugin=p")


WORDS = ["plugins", "objective", "wga", "pcgrad", "nope", "é", "-", "--", "-x", ""]
OPTIONS = ["help", "version", "json", "json=1", "kind", "kind=", "debug", "without-plugin"]


@given(st.lists(st.sampled_from([*WORDS, *(f"--{option}" for option in OPTIONS)]), max_size=6))
def test_no_line_is_a_defect(words: list[str]) -> None:
    assert main(words) in (0, 2)


# -- as a process -------------------------------------------------------------------------------


def test_the_module_and_the_script_are_the_same_command() -> None:
    module = _python("-m", "amnesis", "--version")
    script = subprocess.run(
        [Path(sys.executable).with_name("amnesis"), "--version"], capture_output=True, text=True
    )
    assert (module.returncode, module.stdout) == (0, f"amnesis {amnesis.__version__}\n")
    assert (script.returncode, script.stdout) == (module.returncode, module.stdout)


def test_exit_codes_reach_the_shell() -> None:
    done = _python("-m", "amnesis", "plugins", "wgaa")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: no plugin component is called 'wgaa'")


def test_a_reader_that_has_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "amnesis", "plugins", "--json"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert process.stderr == ""
    assert process.returncode == complaints.BROKEN_PIPE


def test_ctrl_c_is_one_line_and_its_own_code(tmp_path: Path) -> None:
    (tmp_path / "waiting.py").write_text(
        "import time, amnesis\n"
        "def wait():\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "@amnesis.hookimpl\n"
        "def register_commands(register):\n"
        "    register('wait', 'waiting:wait', summary='wait')\n"
    )
    metadata = tmp_path / "waiting-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: waiting\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[amnesis]\nwaiting = waiting\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "amnesis", "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        # Started in the background, a shell has told us to ignore it, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "interrupted\n")


def test_a_terminal_that_knows_ascii_only_is_no_error() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for line in (["plugins", "sago"], ["plugins", "sago", "--json"], ["--help"]):
        done = _python("-m", "amnesis", *line, env=environment)
        assert done.returncode == 0, done.stderr
    document = json.loads(_python("-m", "amnesis", *line[:0], "plugins", "sago", "--json").stdout)
    assert "γ" in document["components"][0]["formula"]
