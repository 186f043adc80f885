"""Everything that is wrong with an input, collected before it is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from amnesis.errors import AmnesisError, RecipeError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Problems:
    """What is wrong so far, one line each."""

    found: list[str] = field(default_factory=list)

    def attempt(
        self, where: str, action: Callable[P, T], *arguments: P.args, **options: P.kwargs
    ) -> T | None:
        """Return what an action does; where it says what is wrong, collect that and return None."""
        try:
            return action(*arguments, **options)
        except AmnesisError as error:
            said = str(error)
            self.found.append(said if said.startswith(where) else f"{where}: {said}")
            return None

    def raise_any(self, what: str) -> None:
        """Raise all that was found as one error.

        Raises:
            RecipeError: there was something.
        """
        if len(self.found) == 1:
            raise RecipeError(self.found[0])
        if self.found:
            listed = "\n".join(f"  - {problem}" for problem in self.found)
            raise RecipeError(f"{what}: {len(self.found)} problems\n{listed}")
