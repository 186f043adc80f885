"""The page of commands: what each does, its arguments and its options."""

from __future__ import annotations

import inspect
from typing import Any

import typer
from docs.generate.components import builtin
from docs.generate.markdown import code, prose, table

from amnesis.discovery.entry import Entry
from amnesis.discovery.registry import default_registry

_BEFORE = """# Commands

`amnesis --help` lists them and `amnesis COMMAND --help` says what this page says.
`python -m amnesis` is the same, so `torchrun -m amnesis run …` works. Two options stand anywhere
on a line: `--debug` shows the traceback of an error, and `--without-plugin NAME` leaves a plugin
out.

The exit code is 0 where all went well, 1 for a defect of amnesis, 2 for an input that is wrong
(one line says what, where, and what to do), and 3 where an audit's policy is violated or
`audit --verify` finds that something is not as it should be.
"""


def command_of(entry: Entry) -> Any:
    """Return the command that typer makes of a registered function."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(entry.name)(entry.load())
    return typer.main.get_command(app)


def commands() -> dict[str, Any]:
    """Return amnesis's own commands by name."""
    entries = builtin(default_registry(), "command")
    return {entry.name: command_of(entry) for entry in entries}


def page() -> str:
    """Return the page."""
    return "\n".join([_BEFORE, *(_section(name, one) for name, one in commands().items())])


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = " ".join(_placed(argument) for argument in arguments)
    rows = [_cells(p) for p in command.params if p.name != "help"]
    usage = f"```text\namnesis {name} {words} [OPTIONS]\n```\n".replace("  ", " ")
    said = prose(inspect.cleandoc(command.help or ""))
    return "\n".join(
        [f"## {name}\n", f"{said}\n", usage, table(["", "what it is", "default"], rows)]
    )


def _placed(argument: Any) -> str:
    name = str(argument.metavar or argument.name).upper()
    shown = name if argument.required else f"[{name}]"
    return f"{shown} …" if argument.nargs == -1 else shown


def _cells(parameter: Any) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        shown = code(_placed(parameter))
    else:
        names = [*parameter.opts, *parameter.secondary_opts]
        shown = " ".join(map(code, names))
    default = "required" if parameter.required else _default(parameter)
    return shown, prose(parameter.help or ""), default


def _default(parameter: Any) -> str:
    value = parameter.default
    if value is None or value is False or value == [] or callable(value):
        return ""
    return code("yes" if value is True else str(value))
