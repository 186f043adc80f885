"""The command line: ``amnesis``, its core commands, and what a command of a plugin builds on.

``app`` parses, a command's own file works, ``errors`` puts what goes wrong into one line. Whoever
brings a command finds here a console, progress, a new folder for results, a model to work on, and
the registry that the command line looks names up in.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from amnesis.discovery.hookspecs import Register, hookimpl

if TYPE_CHECKING:
    from amnesis.cli.cache import cache_folder
    from amnesis.cli.terminal import (
        console,
        print_json,
        print_notes,
        print_verdict,
        quiet_libraries,
        registry_of,
    )
    from amnesis.progress import ProgressBars
    from amnesis.runs.folder import check_empty, make_new_folder
    from amnesis.runs.subject import LoadedSubject, load_subject

__all__ = [
    "LoadedSubject",
    "ProgressBars",
    "cache_folder",
    "check_empty",
    "console",
    "load_subject",
    "make_new_folder",
    "print_json",
    "print_notes",
    "print_verdict",
    "quiet_libraries",
    "register_commands",
    "registry_of",
]

# Imported when first used: listing commands imports nothing heavy.
_HOMES = {
    "LoadedSubject": "amnesis.runs.subject",
    "ProgressBars": "amnesis.progress",
    "cache_folder": "amnesis.cli.cache",
    "check_empty": "amnesis.runs.folder",
    "console": "amnesis.cli.terminal",
    "load_subject": "amnesis.runs.subject",
    "make_new_folder": "amnesis.runs.folder",
    "print_json": "amnesis.cli.terminal",
    "print_notes": "amnesis.cli.terminal",
    "print_verdict": "amnesis.cli.terminal",
    "quiet_libraries": "amnesis.cli.terminal",
    "registry_of": "amnesis.cli.terminal",
}
_COMMANDS = {
    "run": ("run:run", "unlearn as a recipe says, evaluated before and after"),
    "finetune": ("run:finetune", "make a target to unlearn, or a retain-only reference"),
    "plugins": ("plugins:plugins", "list every component, or show one in full"),
    "recipe": ("recipe:recipe", "explain a recipe's keys, or print its JSON Schema"),
    "new-plugin": ("new_plugin.command:new_plugin", "write a plugin's package to begin with"),
    "help": ("help:show_help", "what a command does"),
    "cache": ("cache:cache", "what is kept between runs: list it, or delete it"),
}


@hookimpl
def register_commands(register: Register) -> None:
    """Register the core's own commands, as a plugin registers its own."""
    for name, (target, summary) in _COMMANDS.items():
        register(name, f"amnesis.cli.{target}", summary=summary)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
