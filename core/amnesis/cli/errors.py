"""From an exception to what the command line says of it: one line, and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

import typer

from amnesis.discovery.manager import Plugin
from amnesis.discovery.registry import Registry
from amnesis.errors import AmnesisError, Interrupted, one_line

# A disk, a quota or a permission is never a defect of ours.
_ENVIRONMENT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}

DEFECT, WRONG_INPUT, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


def complain(error: BaseException, registry: Registry | None, *, debug: bool) -> int:
    """Say on stderr what went wrong, and give the exit code; ``debug`` shows the traceback too."""
    if isinstance(error, BrokenPipeError):
        return _leave_quietly()
    if isinstance(error, SystemExit):
        raise error
    if debug:
        traceback.print_exception(error)
    message, code = _worded(error, registry)
    with suppress(BrokenPipeError):
        print(message, file=sys.stderr, flush=True)
    return code


def _worded(error: BaseException, registry: Registry | None) -> tuple[str, int]:
    if isinstance(error, Interrupted):
        return str(error), error.exit_code
    if isinstance(error, AmnesisError):
        return f"error: {error}", error.exit_code
    if hasattr(error, "format_message"):
        return f"error: {_usage(error)}", WRONG_INPUT
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return one_line(error) or "interrupted", INTERRUPTED
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        where = f": {error.filename}" if error.filename else ""
        return f"error: {error.strerror}{where}", WRONG_INPUT
    what = f"{type(error).__name__}: {one_line(error)} ({_place(error)})"
    owner = _owner(error, registry)
    if owner is not None:
        return (
            f"error: plugin {owner} failed with {what}; tell its authors, or do without it; "
            f"--debug shows the traceback",
            WRONG_INPUT,
        )
    return (
        f"error: this is a defect of amnesis, please report it: {what}; "
        f"--debug shows the traceback",
        DEFECT,
    )


def _usage(error: BaseException) -> str:
    """Word what the parser found wrong in one line, with the command whose help says more."""
    said = " ".join(str(error.format_message()).split()).rstrip(".")  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "amnesis"
    return f"{said}; see '{command} --help'"


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "no traceback"


def _owner(error: BaseException, registry: Registry | None) -> Plugin | None:
    """Return the third party's plugin in whose code, or in what it called, the error arose."""
    plugins: dict[str, Plugin] = {}
    for entry in registry or ():
        for module in (getattr(entry.plugin.module, "__name__", ""), entry.target):
            plugins.setdefault(str(module).partition(":")[0].partition(".")[0], entry.plugin)
    for frame in reversed(list(_frames(error))):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package == "amnesis":
            return None
        if package in plugins:
            owner = plugins[package]
            return None if owner.distribution == "amnesis" else owner
    return None


def _frames(error: BaseException) -> Iterator[FrameType]:
    step = error.__traceback__
    while step is not None:
        yield step.tb_frame
        step = step.tb_next


def _leave_quietly() -> int:
    """Keep the interpreter from complaining, at its end, of a reader that has gone."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
