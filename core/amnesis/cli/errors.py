"""From an exception to what the command line says of it: one line, and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer

from amnesis.discovery.manager import Plugin
from amnesis.discovery.registry import Registry
from amnesis.errors import AmnesisError, Interrupted, one_line, printable

# How libraries word what is the world's fault and not ours: a disk's, or that a process is gone.
_DISK = (
    "no space left on device",
    "input/output error",
    "os error 28",
    "os error 5)",
    "pytorchstreamwriter failed",
)
_LOST = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "timed out waiting",
    "ncclremoteerror",
    "ncclsystemerror",
)

DEFECT, WRONG_INPUT, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


def complain(error: BaseException, registry: Registry | None, *, debug: bool) -> int:
    """Say on stderr what went wrong, and give the exit code; ``debug`` shows the traceback too."""
    if isinstance(error, BrokenPipeError):
        return _leave_quietly()
    if debug:
        traceback.print_exception(error)
    message, code = _worded(error, registry)
    with suppress(BrokenPipeError):
        # What lists problems has lines of its own, whose parts are printable already.
        print("\n".join(map(printable, message.split("\n"))), file=sys.stderr, flush=True)
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
    if isinstance(error, SystemExit):
        return _exited(error, registry)
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename else ""
        return f"error: {error.strerror or one_line(error)}{where}", WRONG_INPUT
    said = str(error).lower()
    if any(words in said for words in _DISK):
        return f"error: {one_line(error)}", WRONG_INPUT
    if any(words in said for words in _LOST):
        return (
            f"error: another process of this run is gone ({one_line(error)[:160]}); see what it "
            f"said, and go on with --resume",
            WRONG_INPUT,
        )
    what = f"{type(error).__name__}: {one_line(error)} ({_place(error)})"
    owner = _owner(_frames(error), registry)
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


@contextmanager
def no_silent_exit(registry: Registry | None) -> Iterator[None]:
    """Let nothing in this process end it as if all were well by ``os._exit``, which runs no code.

    A child that was forked ends as it likes.
    """
    process, leave = os.getpid(), os._exit

    def leave_with_a_word(status: int) -> NoReturn:
        if os.getpid() == process:
            message, _ = _exited(SystemExit(status), registry, sys._getframe(1))
            print(printable(message), file=sys.stderr, flush=True)
            leave(DEFECT)
        leave(status)

    os._exit = leave_with_a_word
    try:
        yield
    finally:
        os._exit = leave


def _exited(
    error: SystemExit, registry: Registry | None, caller: FrameType | None = None
) -> tuple[str, int]:
    """Word what ended the process from inside: nothing of ours does, so the run is not done."""
    owner = _owner(_frames(error) if caller is None else _callers(caller), registry)
    who = f"plugin {owner}" if owner is not None else "a library"
    return f"error: {who} ended the process with exit({error.code!r}); nothing is finished", DEFECT


def _usage(error: BaseException) -> str:
    """Word what the parser found wrong in one line, with the command whose help says more."""
    said = " ".join(str(error.format_message()).split()).rstrip(".")  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "amnesis"
    parameters = getattr(getattr(context, "command", None), "params", ())
    if type(error).__name__ == "NoSuchOption" and any(p.name == "overrides" for p in parameters):
        said += "; a value of the recipe is given without dashes, as in training.steps=10"
    return f"{said}; see '{command} --help'"


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "no traceback"


def _owner(frames: Iterable[FrameType], registry: Registry | None) -> Plugin | None:
    """Return the third party's plugin in whose code, or in what it called, the last frame is."""
    plugins: dict[str, Plugin] = {}
    for entry in registry or ():
        for module in (getattr(entry.plugin.module, "__name__", ""), entry.target):
            plugins.setdefault(str(module).partition(":")[0].partition(".")[0], entry.plugin)
    for frame in reversed(list(frames)):
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


def _callers(frame: FrameType | None) -> list[FrameType]:
    """Return the frames that lead to one, the outermost first."""
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _leave_quietly() -> int:
    """Keep the interpreter from complaining, at its end, of a reader that has gone."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
