"""The exceptions for wrong inputs, each with the exit code of a command that ends with it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

MAX_LISTED = 12  # names in one message


class AmnesisError(Exception):
    """The input is wrong. The message says what is wrong, where, and what to do about it.

    Attributes:
        exit_code: that of a command that ends with it.
        problems: where the message lists several, each of them alone.
    """

    exit_code = 2
    problems: tuple[str, ...] = ()


class RecipeError(AmnesisError):
    """A recipe, or an argument that replaces a part of one, cannot be used."""


class DataError(AmnesisError):
    """A data file or its rows cannot be used."""


class ModelError(AmnesisError):
    """A model or tokenizer cannot be used."""


class PluginError(AmnesisError):
    """A plugin or a name that it registers cannot be used.

    ``problem`` is the message without ``notes``, the faults of plugins that may be its cause: a
    list of several problems says each of those once.
    """

    def __init__(self, problem: str, notes: Iterable[str] = ()) -> None:
        """Take the message, and what may be behind it."""
        self.problem, self.notes = problem, tuple(notes)
        super().__init__("".join([problem, *(f"; note: {note}" for note in self.notes)]))


class ContractError(PluginError):
    """A component breaks its contract: a wrong type or shape, or an undeclared score is read."""


class OutputError(AmnesisError):
    """A folder or file cannot be written, or already holds something."""


class NonFiniteError(AmnesisError):
    """A loss or a gradient is no longer a finite number."""


class ResourceError(AmnesisError):
    """Memory, disk or device is too small; the message says which setting to lower."""


class Interrupted(AmnesisError):  # noqa: N818  # nothing is wrong: the user asked for it
    """The user stopped the run; the message says after which step, and how to resume."""

    exit_code = 130
    folder: Path | None = None  # where the run is that can go on


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return a hint for an unknown name: similar candidates, ignoring case, and a list of all.

    The list ends after :data:`MAX_LISTED` names with the number of candidates.
    """
    names = sorted(candidates)
    by_lower_case = {candidate.lower(): candidate for candidate in names}
    matches = get_close_matches(str(name).lower(), by_lower_case, n=2, cutoff=0.6)
    question = " or ".join(repr(by_lower_case[match]) for match in matches)
    hint = f"did you mean {question}? " if question else ""
    if len(names) > MAX_LISTED:
        names = [*names[:MAX_LISTED], f"… ({len(names)} in all)"]
    return f"{hint}available: {', '.join(names) if names else 'none'}"


def one_line(error: BaseException) -> str:
    """Return an error's message with all whitespace collapsed to single spaces."""
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank, or its type's name."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def printable(text: str) -> str:
    """Return a text in which control characters are shown, not carried out: ``\\x1b`` for ESC.

    Line breaks are among them, so that no name can forge a line of its own.
    """
    return "".join(
        character
        if character.isprintable() or character == " "
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
