"""How numbers are written on pages: as many digits as tables show, with real minus signs."""

from __future__ import annotations

import math
import re

from markupsafe import Markup

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` decimals; tiny and huge ones with 3 significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int):
        return f"{value:d}".replace("-", "−")
    if value == 0 or 10**-digits <= abs(value) < 1e6:
        return f"{value:.{digits}f}".replace("-", "−")
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}".replace("-", "−")


def data(value: float | None, digits: int = 3) -> Markup:
    """Return a number as an element that holds the exact value beside the one that is shown."""
    if value is None or not math.isfinite(value):
        return Markup('<span class="none">–</span>')
    return Markup('<data value="{}">{}</data>').format(repr(value), number(value, digits))


def interval(ends: tuple[float, float] | None) -> Markup:
    """Return the ends of an interval; of none, nothing."""
    if ends is None:
        return Markup("")
    return Markup('<span class="interval">{} – {}</span>').format(data(ends[0]), data(ends[1]))


def with_minus(text: str) -> str:
    """Return a text whose negative numbers have minus signs; names with hyphens keep these."""
    return re.sub(r"(?<![^\s(])-(?=\d)", "−", text)
