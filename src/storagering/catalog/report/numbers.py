"""Numbers for people, as physicists write them: few digits, units of the SI, true minus signs, powers of ten."""

from __future__ import annotations

import math
from datetime import UTC, datetime

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_GAP = "\N{NARROW NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
_DIGITS = 4


def bytes_text(nbytes: float) -> str:
    """Three digits and a unit: ``4.13 MB``."""
    if nbytes < 999.5:
        return f"{nbytes:.0f}{_GAP}B"
    return _scaled(nbytes, ("kB", "MB", "GB", "TB", "PB", "EB"))


def count_text(count: int) -> str:
    """All digits, in groups of three: ``1 234 567``."""
    return f"{count:,}".replace(",", _GAP)


def short_count(count: int) -> str:
    """Three digits of a large count: ``1.23 M``."""
    return count_text(count) if count < 100_000 else _scaled(count, ("k", "M", "G", "T", "P"))


def value_text(value: float | None) -> str:
    """A value to four digits; powers of ten where there would be many zeros; '' if there is none."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        text = f"{value:.{_DIGITS}g}" if abs(value) < 10**_DIGITS else f"{value:.0f}"
        return text.replace("-", _MINUS)
    mantissa, _, exponent = f"{value:.{_DIGITS - 2}e}".partition("e")
    power = str(int(exponent)).translate(_SUPERSCRIPTS)
    return f"{mantissa.replace('-', _MINUS)}×10{power}"


def ratio_text(raw: float, stored: float) -> str:
    """How many times smaller it is: ``2.61×``; a dash for nothing."""
    return f"{raw / stored:.2f}×" if stored else "–"


def share_text(part: float, whole: float) -> str:
    """``12 %``; what is there but small is not 0."""
    if not whole:
        return f"0{_GAP}%"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return f"<{_GAP}0.1{_GAP}%"
    digits = 1 if share < 10 and share != round(share) else 0
    return f"{share:.{digits}f}{_GAP}%"


def time_text(seconds: float | None) -> str:
    """A time since 1970 to the minute, in UTC; a dash for none."""
    return "–" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def duration_text(seconds: float) -> str:
    """``42 s``, ``3 min``, ``1.5 h``, ``2.1 d``."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.3g}{_GAP}{unit}"
    return f"{seconds / 86400:.3g}{_GAP}d"


def _scaled(value: float, units: tuple[str, ...]) -> str:
    for unit in units:
        value /= 1000
        if value < 999.5 or unit == units[-1]:
            break
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}{_GAP}{unit}"
