"""What goes wrong is said in one line, with an exit code that says what kind it is."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tests.core.cli.lines import one_line, python, raising
from tests.core.strangers import registry_with, stranger

from amnesis.cli.app import main
from amnesis.cli.errors import BROKEN_PIPE, DEFECT, INTERRUPTED, WRONG_INPUT, complain
from amnesis.discovery.manager import Plugin
from amnesis.errors import AmnesisError, Interrupted, PluginError


class PolicyError(AmnesisError):
    exit_code = 3


def failing(error: BaseException) -> Plugin:
    """Return a plugin, as if it were amnesis's own, whose command ``fail`` does."""
    return stranger("amnesis", command={"fail": raising(error)})


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
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            2,
            "error: Permission denied: /x",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: No space left on device"),
    ],
    ids=repr,
)
def test_errors_are_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str | None
) -> None:
    assert main(["fail"], registry=registry_with(failing(error))) == code
    if said is None:
        assert capsys.readouterr().err == ""
    else:
        assert one_line(capsys).startswith(said)


def test_a_list_of_problems_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    error = AmnesisError("two problems\n  - one\n  - another")
    assert main(["fail"], registry=registry_with(failing(error))) == 2
    assert capsys.readouterr().err == "error: two problems\n  - one\n  - another\n"


def test_a_defect_says_so_and_how_to_see_more(capsys: pytest.CaptureFixture[str]) -> None:
    registry = registry_with(failing(ZeroDivisionError("two\nlines")))
    assert main(["fail"], registry=registry) == 1
    said = one_line(capsys)
    assert said.startswith("error: this is a defect of amnesis, please report it: ")
    assert "ZeroDivisionError: two lines (lines.py:" in said
    assert said.endswith("--debug shows the traceback")


def test_a_third_party_s_failure_is_not_called_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_code.py").write_text(
        "import json\n"
        "from amnesis.discovery.manager import build_manager\n"
        "def theirs(): json.loads('{')\n"
        "def ours(): build_manager(3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    commands = {name: f"their_code:{name}" for name in ("theirs", "ours")}
    registry = registry_with(stranger(command=commands))
    assert main(["theirs"], registry=registry) == 2
    said = one_line(capsys)
    assert said.startswith("error: plugin third-party 1.0, entry point 'theirs' failed with JSON")
    assert main(["ours"], registry=registry) == 1  # what it called in amnesis is ours to check
    assert "this is a defect of amnesis" in one_line(capsys)
    monkeypatch.delitem(sys.modules, "their_code")


@pytest.mark.parametrize("line", [["--debug", "fail"], ["fail", "--debug"]], ids=" ".join)
def test_debug_shows_the_traceback_wherever_it_stands(
    capsys: pytest.CaptureFixture[str], line: list[str]
) -> None:
    registry = registry_with(failing(PluginError("wrong")))
    assert main(line, registry=registry) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("\nerror: wrong\n")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (AmnesisError("wrong"), WRONG_INPUT, "error: wrong"),
        (ValueError(), DEFECT, "error: this is a defect of amnesis"),
        (KeyboardInterrupt("stopped\nby hand"), INTERRUPTED, "stopped by hand"),
    ],
    ids=repr,
)
def test_what_goes_wrong_before_there_is_a_registry_is_said_too(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    assert complain(error, None, debug=False) == code
    assert one_line(capsys).startswith(said)


@pytest.mark.parametrize("code", [0, None, 7])
def test_an_exit_from_inside_is_no_success(
    capsys: pytest.CaptureFixture[str], code: int | None
) -> None:
    assert complain(SystemExit(code), None, debug=False) == DEFECT
    assert f"ended the process with exit({code!r})" in one_line(capsys)


def test_control_characters_are_shown_and_not_carried_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    complain(AmnesisError("\x1b[2Jno \x07such \x9bthing"), None, debug=False)
    assert one_line(capsys) == "error: \\x1b[2Jno \\x07such \\x9bthing"


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error", "somewhere"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/1"),
        RuntimeError("[../gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]"),
    ],
    ids=repr,
)
def test_the_world_s_faults_are_not_called_defects(
    capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    assert complain(error, None, debug=False) == WRONG_INPUT
    assert "defect" not in one_line(capsys)


def test_exit_codes_reach_the_shell() -> None:
    done = python("-m", "amnesis", "plugins", "wgaa")
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
    assert process.returncode == BROKEN_PIPE


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
