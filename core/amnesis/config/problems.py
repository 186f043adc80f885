"""Everything that is wrong with an input, collected before it is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from amnesis.errors import AmnesisError, RecipeError

T = TypeVar("T")


@dataclass
class Problems:
    """What was found wrong so far."""

    found: list[str] = field(default_factory=list)

    def attempt(self, where: str, action: Callable[[], T]) -> T | None:
        """Do something; note what it says is wrong, instead of stopping at it."""
        try:
            return action()
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
