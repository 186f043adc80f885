"""Errors of several checks, collected so that all of them are reported at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from amnesis.errors import AmnesisError, PluginError, RecipeError, printable

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Problems:
    """The errors of an input so far; ``found`` holds their messages, ``notes`` what may be behind.

    A fault of a plugin that several of them may be due to is noted once.
    """

    found: list[str] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)

    def attempt(
        self, where: str, action: Callable[P, T], *arguments: P.args, **options: P.kwargs
    ) -> T | None:
        """Call ``action`` and return its result, or collect its AmnesisError and return None.

        The message is prefixed with ``where`` unless it begins with it; one that lists several
        problems becomes as many.
        """
        try:
            return action(*arguments, **options)
        except AmnesisError as error:
            messages = error.problems or (str(error),)
            if isinstance(error, PluginError):
                messages = (error.problem,)
                self.notes.update(dict.fromkeys(error.notes))
            self.found += [m if m.startswith(where) else f"{where}: {m}" for m in messages]
            return None

    def raise_any(self, what: str) -> None:
        """Raise one error for all collected messages; ``what`` is the input that they are about.

        Raises:
            RecipeError: at least one message was collected.
        """
        if self.found:
            raise listed(what, self.found, tuple(self.notes))


def listed(
    what: str,
    problems: Sequence[str],
    notes: Sequence[str] = (),
    error: type[AmnesisError] = RecipeError,
) -> AmnesisError:
    """Return the error that says one problem, or lists several, a line each, and then the notes.

    ``what`` is the input that they are about. No text of a stranger's can forge a line.
    """
    if len(problems) == 1:
        text = "; note: ".join(map(printable, [problems[0], *notes]))
    else:
        lines = [f"  - {printable(problem)}" for problem in problems]
        lines += [f"  note: {printable(note)}" for note in notes]
        text = "\n".join([f"{printable(what)}: {len(problems)} problems", *lines])
    whole = error(text)
    whole.problems = tuple(problems)
    return whole
