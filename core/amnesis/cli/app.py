"""The command line: core's own commands, and those of plugins, imported when they are called."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from amnesis import __version__
from amnesis.cli.errors import complain
from amnesis.discovery.entry import Entry
from amnesis.discovery.registry import default_registry, without_plugins
from amnesis.errors import PluginError, one_line


class Commands(TyperGroup):
    """Core's commands and, listed but not imported, the registry's."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Give core's commands, then the plugins'."""
        return [*self.commands, *default_registry().names("command")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Give a command, or for a plugin's what stands for it until it is called.

        Raises:
            PluginError: no command has that name (with suggestions).
        """
        if cmd_name in self.commands or cmd_name.startswith("-"):
            return self.commands.get(cmd_name)
        registry = default_registry()
        owners = registry.find(cmd_name, ("command",))
        if not owners:
            known = self.list_commands(ctx)
            raise registry.unknown(f"no command is called {cmd_name!r}", cmd_name, known)
        return PluginCommand(owners[0], lambda: registry.get("command", cmd_name))


class PluginCommand(TyperCommand):
    """Stands in a listing for a plugin's command, and becomes it when it is called."""

    def __init__(self, listed: Entry, owner: Callable[[], Entry]) -> None:
        """Take what listings show; ``owner`` gives the entry itself, or says why it cannot."""
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
        app.command(entry.name)(function)
        return typer.main.get_command(app)
    except Exception as error:  # typer says in many ways that it cannot read a parameter
        raise PluginError(
            f"{entry}: typer cannot make a command of {function.__qualname__}: {one_line(error)}; "
            f"annotate its parameters with types that typer understands"
        ) from error


app = typer.Typer(cls=Commands, add_completion=False, rich_markup_mode=None)


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


RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Changes of the recipe's values."),
]
Out = Annotated[Path | None, typer.Option(help="The folder for results; without it a new one.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what the folder holds.")]
Check = Annotated[bool, typer.Option("--check", help="Check all that can be checked, and stop.")]
Device = Annotated[str | None, typer.Option(help="Where to compute, such as cpu or cuda:0.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that a model repository brings.")
]


def _recipe_command(name: str, short_help: str, explained: str) -> Callable[..., None]:
    """Make a command that does what a recipe says."""

    def command(
        recipe: RecipeFile,
        overrides: Overrides = None,
        out: Out = None,
        resume: Resume = False,
        overwrite: Overwrite = False,
        check: Check = False,
        device: Device = None,
        trust_remote_code: TrustRemoteCode = False,
    ) -> None:
        from amnesis.cli.run import recipe_command

        recipe_command(
            name,
            recipe,
            overrides or [],
            out,
            resume=resume,
            overwrite=overwrite,
            check=check,
            device=device,
            trust_remote_code=trust_remote_code,
        )

    command.__doc__ = explained
    return app.command(name, short_help=short_help)(command)


run = _recipe_command(
    "run",
    "unlearn as a recipe says, judged before and after",
    "Unlearn as a recipe says, and judge the model before and after.",
)
finetune = _recipe_command(
    "finetune",
    "make a target to unlearn, or a retain-only reference",
    "Make a model that knows something: a target to unlearn, or a retain-only reference.",
)


@app.command(short_help="list every component, or show one in full")
def plugins(
    name: Annotated[str | None, typer.Argument(help="Show all about what has this name.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, such as objective.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every objective, combiner, metric, command …, or show one with its hyper-parameters."""
    from amnesis.cli.plugins import plugins_command

    plugins_command(default_registry(), name, kind, as_json=as_json)


@app.command(short_help="what is kept between runs: list it, or delete it")
def cache(
    name: Annotated[
        str | None, typer.Argument(help="Only the model whose fingerprint begins so.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete instead of listing.")] = False,
) -> None:
    """List or delete reference scores and judgements that earlier commands computed."""
    from amnesis.cli.cache import cache_command, cache_folder

    cache_command(cache_folder(), delete, name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit code.

    0: done; 1: a defect of amnesis; 2: the input is wrong; 3: an audit's policy is violated.
    """
    # Before an import of theirs can chatter.
    for library in ("bitsandbytes", "torchao", "torch.utils._pytree"):
        logging.getLogger(library).setLevel(logging.ERROR)
    given = list(sys.argv[1:] if arguments is None else arguments)
    line, debug, left_out = _split_globals(given)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # formulas are not ASCII
    with without_plugins(frozenset(left_out)):
        try:
            group = typer.main.get_command(app)
            with group.make_context("amnesis", line or ["--help"]) as context:
                group.invoke(context)
            sys.stdout.flush()
        except typer.Exit as stop:
            return stop.exit_code
        except BaseException as error:
            return complain(error, debug=debug)
    return 0


def _split_globals(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    """Take ``--debug`` and ``--without-plugin NAME`` from wherever they stand before ``--``."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    line: list[str] = []
    left_out: list[str] = []
    debug = False
    waiting = iter(arguments[:end])
    for word in waiting:
        option, equals, value = word.partition("=")
        if word == "--debug":
            debug = True
        elif option == "--without-plugin":
            name = value if equals else next(waiting, "")
            if not name:
                line.append(word)  # for the parser to say that its value is missing
            else:
                left_out.append(name)
        else:
            line.append(word)
    return line + arguments[end:], debug, left_out
