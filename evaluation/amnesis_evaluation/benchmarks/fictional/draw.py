"""Random choices that come out the same on every platform and Python version."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """A named, seeded stream of choices.

    Python guarantees that ``Random(text).random()`` keeps its sequence from version to version; it
    guarantees nothing of the kind for ``choice``, ``sample`` or ``shuffle``, which are therefore
    written here on top of ``random()``. The name keeps streams apart: drawing more facts does not
    change the people.
    """

    def __init__(self, seed: int, name: str) -> None:
        # A text, because Random(-1) and Random(1) are the same generator.
        self._random = random.Random(f"fictional {name} {seed}")

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to ``limit - 1``.

        Raises:
            ValueError: ``limit`` is below 1.
        """
        if limit < 1:
            raise ValueError(f"there is nothing to choose from: the limit is {limit}")
        return int(self._random.random() * limit)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options.

        Raises:
            ValueError: there are none.
        """
        return options[self.below(len(options))]

    def several(self, options: Iterable[T], count: int) -> list[T]:
        """Return ``count`` of the options, none twice.

        Raises:
            ValueError: there are fewer options.
        """
        remaining = list(options)
        if count > len(remaining):
            raise ValueError(f"cannot draw {count} of {len(remaining)} options")
        for place in range(count):
            other = place + self.below(len(remaining) - place)
            remaining[place], remaining[other] = remaining[other], remaining[place]
        return remaining[:count]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """Return a new list of the options in random order."""
        return self.several(options, len(options))

    def pairs(self, firsts: Sequence[str], seconds: Sequence[str]) -> list[tuple[str, str]]:
        """Return every (first, second) pair once, so ordered that no word recurs before it must.

        The first ``len(firsts)`` pairs use each word once: two people share a surname only when
        there are more people than surnames.

        Raises:
            ValueError: the lists differ in length.
        """
        if len(firsts) != len(seconds):
            raise ValueError(f"{len(firsts)} first words cannot be paired with {len(seconds)}")
        left, right = self.shuffled(firsts), self.shuffled(seconds)
        size = len(left)
        return [(left[i], right[(i + turn) % size]) for turn in range(size) for i in range(size)]
