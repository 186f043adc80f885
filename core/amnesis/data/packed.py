"""Encoded texts, packed: four bytes a token, however many texts there are."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import overload

from amnesis.data.templates import Encoded

_KEY = 16  # bytes of a text's digest


class PackedTexts(Sequence[Encoded]):
    """A growing sequence of encoded texts, each unpacked when it is asked for.

    A tuple of Python's integers takes ten times the memory.
    """

    def __init__(self) -> None:
        """Begin without texts."""
        self._ids, self._ends = array("i"), array("q", [0])
        self._prompts, self._cuts = array("i"), array("q")
        self._counted: dict[int, tuple[int, ...]] = {}
        self._keys = bytearray()

    def append(self, encoded: Encoded) -> None:
        """Add a text."""
        if encoded.counted is not None:
            self._counted[len(self)] = encoded.counted
        self._ids.extend(encoded.input_ids)
        self._ends.append(len(self._ids))
        self._prompts.append(encoded.prompt_length)
        self._cuts.append(encoded.cut)
        self._keys += bytes.fromhex(encoded.key)

    def __len__(self) -> int:
        return len(self._prompts)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Encoded, ...]: ...
    def __getitem__(self, index: int | slice) -> Encoded | tuple[Encoded, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]
        ids = self._ids[self._ends[place] : self._ends[place + 1]]
        counted = self._counted.get(place)
        return Encoded(tuple(ids), self._prompts[place], self._cuts[place], counted)

    def keys(self) -> Iterator[bytes]:
        """Yield each text's digest, as :attr:`Encoded.key` has it in hexadecimal."""
        for start in range(0, len(self._keys), _KEY):
            yield bytes(self._keys[start : start + _KEY])
