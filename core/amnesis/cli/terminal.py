"""The terminal: what is printed, libraries kept quiet, and the registry of a command line."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amnesis.errors import printable
from amnesis.progress import is_quiet

if TYPE_CHECKING:
    from rich.console import Console

    from amnesis.contracts.report import Verdict
    from amnesis.discovery.registry import Registry

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the results as JSON, and nothing else there.")
]
_WIDE = 10_000  # columns: more than any table has
_PHASES = ("before", "after", "retrained")
# What a note says of something that is not as it was meant to be, and of rows that were dropped.
_WARNING = (
    "failed",
    "lost what",
    "damaged",
    "is off from",
    "end early",
    "ended early",
    "was told nothing further",
    "forgot nothing",
    "will not",
    "left out",
    "learning rate",
    "ends nothing",
)
_DATA = ("were cut", "repetitions", "forget set too", "passed over", "does not fit", "copy of")


def registry_of(context: typer.Context) -> Registry:
    """Return the registry that a command looks names up in: without the plugins left out."""
    registry: Registry = context.obj
    return registry


def console() -> Console:
    """Return a console for standard output; no text is markup, for it may be a stranger's.

    Where there is no terminal whose width it would have to fit, nothing is folded.
    """
    from rich.console import Console

    class Plain(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*map(_shown, objects), **options)

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE
    return Plain(markup=False, emoji=False, highlight=False, width=width)


def _shown(value: Any) -> Any:
    """Return a text with its control characters shown, but for line breaks, which are ours."""
    return "\n".join(map(printable, value.split("\n"))) if isinstance(value, str) else value


def print_notes(notes: Iterable[str]) -> None:
    """Print each note on a line of its own, what matters most first; nothing where quiet."""
    if is_quiet():
        return
    plain = console()
    for note in sorted_notes(notes):
        kind = "warning" if is_warning(note) else "note"
        plain.print(f"{kind}: {printable(note)}", soft_wrap=True)


def sorted_notes(notes: Iterable[str]) -> list[str]:
    """Return notes without repetitions, warnings first, then what was done to the data.

    What was noted before, after and of the retrained model is said once, with all of them.
    """
    phases: dict[str, dict[str, None]] = {}
    for note in notes:
        phase, colon, text = note.partition(": ")
        if not (colon and phase in _PHASES):
            phase, text = "", note
        phases.setdefault(text, {})[phase] = None
    texts = [_of_phases([phase for phase in of if phase], text) for text, of in phases.items()]
    return sorted(texts, key=lambda text: (not is_warning(text), not _of_data(text)))


def is_warning(note: str) -> bool:
    """Whether a note says that something is not as it was meant to be."""
    return any(words in note for words in _WARNING)


def _of_data(note: str) -> bool:
    return any(words in note for words in _DATA)


def _of_phases(phases: list[str], text: str) -> str:
    if not phases:
        return text
    *others, last = phases
    return f"{', '.join(others)} and {last}: {text}" if others else f"{last}: {text}"


def print_json(document: Any) -> None:
    """Print a document for another program: nothing else may be on standard output."""
    print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def print_verdict(verdict: Verdict | None) -> None:
    """Print a verdict's sentence, and what to do each on a line of its own; of none, nothing."""
    if verdict is None:
        return
    plain = console()
    plain.print(printable(verdict.sentence), soft_wrap=True, style="bold")
    for line in verdict.advice:
        plain.print(f"→ {printable(line)}", soft_wrap=True)


@contextmanager
def spoken() -> Iterator[None]:
    """Inside ``with`` what amnesis logs is said as notes are, and what libraries plan is not.

    Their plans, such as an argument that will be called otherwise, are news for programmers:
    ``python -W default -m amnesis`` shows them.
    """
    logger, handler = logging.getLogger("amnesis"), _Spoken(logging.WARNING)
    propagates = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False  # to a handler that some library put there, in a form of its own
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.filterwarnings("ignore", category=FutureWarning, module="(?!amnesis)")
            yield
    finally:
        logger.propagate = propagates
        logger.removeHandler(handler)


class _Spoken(logging.Handler):
    """Says what is logged on a line to standard error; nothing where quiet."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, below the bars of what goes on."""
        if not is_quiet():
            text = printable(record.getMessage())
            print(f"{record.levelname.lower()}: {text}", file=sys.stderr, flush=True)


def quiet_libraries() -> None:
    """Keep the libraries' own chatter off the terminal."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
