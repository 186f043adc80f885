"""Errors of several checks, collected so that all of them are reported at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from amnesis.errors import AmnesisError, RecipeError, printable

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Problems:
    """The errors of an input so far; ``found`` holds their messages."""

    found: list[str] = field(default_factory=list)

    def attempt(
        self, where: str, action: Callable[P, T], *arguments: P.args, **options: P.kwargs
    ) -> T | None:
        """Call ``action`` and return its result, or collect its AmnesisError and return None.

        The message is prefixed with ``where`` unless it begins with it.
        """
        try:
            return action(*arguments, **options)
        except AmnesisError as error:
            message = str(error)
            self.found.append(message if message.startswith(where) else f"{where}: {message}")
            return None

    def raise_any(self, what: str) -> None:
        """Raise one error for all collected messages; ``what`` is the input that they are about.

        Raises:
            RecipeError: at least one message was collected.
        """
        if len(self.found) == 1:
            raise RecipeError(printable(self.found[0]))
        if self.found:
            raise RecipeError(as_list(what, self.found))


def as_list(what: str, problems: Sequence[str]) -> str:
    """Return a message that lists problems, one to a line; none of them can forge another."""
    lines = [f"  - {printable(problem)}" for problem in problems]
    return "\n".join([f"{printable(what)}: {len(problems)} problems", *lines])
