"""``amnesis help``: what ``--help`` says, where people look for it first."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def show_help(
    context: typer.Context,
    command: Annotated[str | None, typer.Argument(help="Of which command; else of all.")] = None,
) -> None:
    """Say what a command does, and which options it takes; without a word, list the commands."""
    root = context.find_root()
    if command is None:
        print(root.get_help())
        return
    group: Any = root.command
    group.get_command(root, command).make_context(command, ["--help"], root)
