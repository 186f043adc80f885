"""What can be wrong with an input, and the exit code that says so."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SHOWN = 12  # names that a message lists at most


class AmnesisError(Exception):
    """The input is wrong: the message says what, where, and what to do (exit code 2)."""

    exit_code = 2


class RecipeError(AmnesisError):
    """A recipe, or an argument that stands for a part of one, cannot be used."""


class DataError(AmnesisError):
    """A data file or its rows cannot be used."""


class ModelError(AmnesisError):
    """A model or tokenizer cannot be used."""


class PluginError(AmnesisError):
    """A plugin or a name that it registers cannot be used."""


class ContractError(PluginError):
    """A component did not keep its contract: a wrong shape, an undeclared need, a wrong type."""


class OutputError(AmnesisError):
    """A folder or file to write is not free to be written."""


class NonFiniteError(AmnesisError):
    """A loss or a gradient is no longer a finite number."""


class ResourceError(AmnesisError):
    """Memory, disk or a device does not suffice; the message says which size to lower."""


class Interrupted(AmnesisError):  # noqa: N818  # nothing is wrong: the user asked for it
    """The user stopped a run; the message says where it stands and how to go on."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say which of ``known`` resembles ``name``, whatever its case, and list them."""
    names = sorted(known)
    folded = {known_name.lower(): known_name for known_name in names}
    close = [folded[c] for c in get_close_matches(str(name).lower(), folded, n=2, cutoff=0.6)]
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    if len(names) > SHOWN:
        names = [*names[:SHOWN], f"… ({len(names)} in all)"]
    return f"{hint}available: {', '.join(names) if names else 'none'}"


def one_line(error: BaseException) -> str:
    """Return an error's message without its line breaks."""
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something, else the error's type."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
