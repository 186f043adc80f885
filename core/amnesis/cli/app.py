"""The ``amnesis`` command: commands of plugins, the core's among them, imported when called."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from amnesis import __version__
from amnesis.cli.errors import complain, no_silent_exit
from amnesis.cli.terminal import spoken
from amnesis.discovery.manager import build_manager
from amnesis.discovery.registry import Registry, default_registry
from amnesis.errors import PluginError, one_line
from amnesis.progress import quietly

if TYPE_CHECKING:
    from amnesis.discovery.entry import Entry


_HELP = {"help_option_names": ["-h", "--help"]}
# By this variable a shell asks what could come next on a line.
_COMPLETION = "_AMNESIS_COMPLETE"


class Commands(TyperGroup):
    """The registry's commands, listed without being imported; the registry is the context's."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return every command's name, sorted."""
        names: list[str] = ctx.obj.names("command")
        return names

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return what stands for a command until it is called.

        Raises:
            PluginError: no command has that name (with suggestions).
        """
        if cmd_name.startswith("-"):
            return None
        registry: Registry = ctx.obj
        owners = registry.find(cmd_name, ("command",))
        if not owners:
            names = registry.names("command")
            raise registry.unknown(f"no command is called {cmd_name!r}", cmd_name, names)
        return PluginCommand(owners[0], lambda: registry.get("command", cmd_name))


class PluginCommand(TyperCommand):
    """Stands in a listing for a plugin's command, and becomes it when it is called."""

    def __init__(self, listed: Entry, owner: Callable[[], Entry]) -> None:
        """Take what listings show; ``owner`` returns the entry itself, or says why it cannot."""
        origin = listed.plugin.distribution
        suffix = "" if origin == "amnesis" else f" ({origin})"
        super().__init__(listed.name, short_help=f"{listed.summary}{suffix}")
        self._owner = owner

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Import the command and let it parse its arguments."""
        return _imported(self._owner()).make_context(info_name, args, parent, **extra)


def _imported(entry: Entry) -> Any:
    """Make a command of the function that a plugin registered."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    function = entry.load()
    try:
        app.command(entry.name, context_settings=_HELP)(function)
        return typer.main.get_command(app)
    except Exception as error:  # typer says in many ways that it cannot read a parameter
        raise PluginError(
            f"{entry}: typer cannot make a command of {function.__qualname__}: {one_line(error)}; "
            f"annotate its parameters with types that typer understands"
        ) from error


_FLAGS = ("--debug", "--quiet")  # what may stand anywhere on the line
app = typer.Typer(cls=Commands, rich_markup_mode=None, context_settings=_HELP)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"amnesis {__version__}")
        raise typer.Exit


@app.callback(epilog="What plugins bring, and which of them are not in use: amnesis plugins.")
def _globals(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", help="Show results and errors alone, no progress and no notes (anywhere)."
        ),
    ] = False,
    without_plugin: Annotated[
        list[str] | None,
        typer.Option(
            "--without-plugin",
            metavar="NAME",
            help="Leave out a plugin, by distribution or entry point (anywhere on the line).",
        ),
    ] = None,
) -> None:
    """Make a language model forget chosen data, see from gradients why, and prove it."""


def main(arguments: Sequence[str] | None = None, registry: Registry | None = None) -> int:
    """Run one command line and return its exit code; names are looked up in ``registry``.

    With a ``registry`` of the caller's, ``--without-plugin`` is refused: it is the caller's to say
    what is in it.

    0: done; 1: a defect of amnesis; 2: the input is wrong; 3: an audit's policy is violated.
    """
    # Before an import of theirs can chatter.
    for library in ("bitsandbytes", "torchao", "torch.utils._pytree"):
        logging.getLogger(library).setLevel(logging.ERROR)
    words = list(sys.argv[1:] if arguments is None else arguments)
    line, options, left_out = _split_globals(words)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # formulas are not ASCII
    try:
        if registry is None:
            registry = Registry(build_manager(blocked=left_out)) if left_out else default_registry()
        elif left_out:
            raise PluginError(
                f"--without-plugin {left_out[0]}: this program brings a registry of its own, from "
                f"which nothing is left out here; leave the plugin out of that"
            )
        group: Any = typer.main.get_command(app)
        if os.environ.get(_COMPLETION):
            return _complete(group, registry)
        with (
            no_silent_exit(registry),
            quietly("--quiet" in options),
            spoken(),
            group.make_context("amnesis", line or ["--help"], obj=registry) as context,
        ):
            group.invoke(context)
        sys.stdout.flush()
    except typer.Exit as stop:
        return stop.exit_code
    except BaseException as error:
        return complain(error, registry, debug="--debug" in options)
    return 0


def _complete(group: Any, registry: Registry) -> int:
    """Tell the shell what could come next, and return the exit code."""
    try:
        group._main_shell_completion({"obj": registry}, "amnesis", _COMPLETION)
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def _split_globals(arguments: list[str]) -> tuple[list[str], set[str], list[str]]:
    """Take :data:`_FLAGS` and ``--without-plugin NAME`` from wherever they stand before ``--``."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    line: list[str] = []
    left_out: list[str] = []
    flags: set[str] = set()
    waiting = iter(arguments[:end])
    for word in waiting:
        option, equals, value = word.partition("=")
        if word in _FLAGS:
            flags.add(word)
        elif option == "--without-plugin":
            name = value if equals else next(waiting, "")
            if not name:
                line.append(word)  # for the parser to say that its value is missing
            else:
                left_out.append(name)
        else:
            line.append(word)
    return line + arguments[end:], flags, left_out
