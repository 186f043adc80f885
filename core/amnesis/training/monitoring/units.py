"""Units of a run's smallest values: TensorBoard prints what is below 0.0001 as 0, or even as −0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from amnesis.contracts.probe import Probe

_LARGE_ENOUGH = 0.1


class Units:
    """The unit that each probe's effects are shown in: a power of ten, or 1.

    It is one for all effects of a probe and for the whole run, from the first step at which one of
    them is not 0: the largest of that step then is between 10 and 100 units. A tag names its unit,
    as in ``effect/layer_in_1e-6``, so that two units are never drawn as one curve.
    """

    def __init__(self, probes: Sequence[Probe]) -> None:
        """Take the probes; no unit is known yet."""
        self._families = list(dict.fromkeys(p.one_unit for p in probes if p.one_unit))
        self._exponents: dict[tuple[str, ...], int] = {}

    def see(self, values: Mapping[str, float]) -> None:
        """Choose the units that a step's values decide; once chosen they stay."""
        for family in self._families:
            if family not in self._exponents:
                sizes = [abs(v) for name, v in values.items() if self._family_of(name) == family]
                if largest := max(sizes, default=0.0):
                    self._exponents[family] = _exponent(largest)

    def shown(self, name: str, value: float) -> tuple[str, float] | None:
        """Return the tag and the value that are shown; None while the unit is not known."""
        family = self._family_of(name)
        if family is None:
            return name, value
        if family not in self._exponents:
            return None
        exponent = self._exponents[family]
        if not exponent:
            return name, value
        return f"{name}_in_1e{exponent}", value / 10**exponent

    def tags(self, name: str) -> str:
        """Return a regular expression, past its beginning, for what :meth:`shown` may make of it.

        The tags of a chart are fixed before any unit is.
        """
        return r"(_in_1e-\d+)?" if self._family_of(name) is not None else ""

    def _family_of(self, name: str) -> tuple[str, ...] | None:
        """Return the family with the longest beginning of a name, whole parts of it."""
        matches = [
            (len(beginning), family)
            for family in self._families
            for beginning in family
            if name == beginning or name.startswith(f"{beginning}/")
        ]
        return max(matches)[1] if matches else None


def _exponent(largest: float) -> int:
    if largest >= _LARGE_ENOUGH:
        return 0
    return math.floor(math.log10(largest)) - 1
