"""The buckets of numbers: fixed narrow intervals, the same for all columns.

A number's bucket is told by its sign, its exponent and the seven leading bits of its mantissa, so it reaches from a
number to one that is larger by at most 2^-7 of it (log-linear buckets, as in G. Tene's HdrHistogram; the error is
relative as in DDSketch: Masson, Rim, Lee, arXiv:1908.10693). NaN and infinities have none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from storagering.cache.tallies import tally_codes
from storagering.distributions import MOST_BINS
from storagering.types import Array

#: Bits of a mantissa that tell buckets apart.
MANTISSA_BITS = 7
#: Those of the exponents.
_BITS32, _BITS64 = 8, 11
#: What the exponents of float64 are larger by, as they are stored, than those of float32.
_REBASED = (1023 - 127) << MANTISSA_BITS
_DROPPED = 52 - MANTISSA_BITS
#: Above this, integers are not exact as float64.
_EXACT = 1 << 53
#: Integers that are no further apart are counted one by one.
_DENSE = 1 << 16
#: Numbers among which few values are looked for first.
_SAMPLE = 1 << 10


class Counted(NamedTuple):
    """What buckets some numbers are in.

    Attributes:
        buckets: rising (int64); that of -x is the opposite of that of x, and that of 0 is 0.
        counts: of each (int64).
        values: the only value in each (float64), NaN if there are several or that is not known.
    """

    buckets: Array
    counts: Array
    values: Array


def count_buckets(numbers: Array) -> Counted:
    """Those of a one-dimensional array of finite and other real numbers; bools count as 0 and 1."""
    if not len(numbers):
        return Counted(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    numbers = np.ascontiguousarray(numbers)
    if numbers.dtype.kind == "f":
        return _count_floats(numbers, exact=True)
    if numbers.dtype.kind == "b":
        numbers = numbers.view(np.uint8)
    low, high = int(numbers.min()), int(numbers.max())
    exact = max(-low, high) <= _EXACT
    return _count_integers(numbers, low) if exact and high - low < _DENSE else _count_floats(numbers, exact=exact)


def bounds_of(buckets: Array) -> tuple[Array, Array]:
    """Where buckets begin and end (float64); bucket 0 holds 0, and what is next to nothing beside it."""
    places = np.abs(buckets)
    near, far = ((p << _DROPPED).view(np.float64) for p in (places, np.where(places > 0, places + 1, 0)))
    return np.where(buckets < 0, -far, near), np.where(buckets < 0, -near, far)


def _count_integers(numbers: Array, low: int) -> Counted:
    """Of integers that are not far apart: all values are counted."""
    unsigned = np.dtype(f"u{numbers.itemsize}")
    start = np.array([low], numbers.dtype).view(unsigned)[0]
    codes, counts = tally_codes(numbers.view(unsigned), lambda some: (some - start).astype(np.uint32) << 16, 16)
    values = (codes + low).astype(np.float64)
    words = values.view(np.int64)
    places = (words & np.int64((1 << 63) - 1)) >> _DROPPED
    return _join(Counted(np.where(words < 0, -places, places), counts, values))


def _count_floats(numbers: Array, *, exact: bool) -> Counted:
    """Of floats, or of integers that are taken as float64, which may be exact."""
    narrow = numbers.dtype.kind == "f" and numbers.itemsize <= np.dtype(np.float32).itemsize
    bits = 1 + MANTISSA_BITS + (_BITS32 if narrow else _BITS64)

    def words(some: Array) -> Array:
        if narrow:
            return some.astype(np.float32, copy=False).view(np.uint32)
        return some.astype(np.float64, copy=False).view(np.uint32)[1::2]

    codes, counts = tally_codes(numbers, words, bits)
    negative = 1 << (bits - 1)
    infinite = negative - (1 << MANTISSA_BITS)
    end, begin, stop = np.searchsorted(codes, (infinite, negative, negative + infinite)).tolist()
    places = np.concatenate((negative - codes[begin:stop][::-1], codes[:end]))
    counts = np.concatenate((counts[begin:stop][::-1], counts[:end]))
    zero = stop - begin
    if 0 < zero < len(places) and places[zero - 1] == places[zero]:  # -0.0 and 0.0
        counts[zero] += counts[zero - 1]
        places, counts = np.delete(places, zero - 1), np.delete(counts, zero - 1)
    values = None
    if exact and len(places) <= MOST_BINS:

        def find(some: Array) -> Array:
            found = (words(some) >> np.uint32(32 - bits)).astype(np.int64)
            return np.where(found < negative, found, negative - found)

        values = _only_values(numbers, find, places, counts)
    if values is None:
        values = np.full(len(places), np.nan)
    return Counted(_widen(places) if narrow else places, counts, values)


def _widen(places: Array) -> Array:
    """The leading bits of float32, with their sign, as those of float64."""
    wide: Array = places + _REBASED * np.sign(places)
    first, last = np.searchsorted(places, (1 - (1 << MANTISSA_BITS), 1 << MANTISSA_BITS)).tolist()
    for at in range(first, last):  # what is below the normal numbers; mostly that is 0 alone
        number = np.uint32(abs(places[at]) << (32 - 1 - _BITS32 - MANTISSA_BITS)).view(np.float32)
        wide[at] = np.sign(places[at]) * (np.float64(number).view(np.int64) >> _DROPPED)
    return wide


def _only_values(numbers: Array, find: Callable[[Array], Array], places: Array, counts: Array) -> Array | None:
    """The value (float64) of each place that ``find`` tells, None if one has several."""
    sample = np.unique(numbers[:_SAMPLE])
    known: dict[int, Any] = {}
    for place, value in zip(find(sample).tolist(), sample, strict=True):
        if known.setdefault(place, value) != value and np.isfinite(value):
            return None
    for place, count in zip(places.tolist(), counts.tolist(), strict=True):
        if place not in known:
            known[place] = numbers[np.argmax(find(numbers) == place)]
        if np.count_nonzero(numbers == known[place]) != count:
            return None
    return np.array([known[place] for place in places.tolist()], np.float64) + 0.0  # -0.0 becomes 0.0


def _join(counted: Counted) -> Counted:
    """With each bucket once; the buckets rise, or stay."""
    buckets, counts, values = counted
    first = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
    if len(first) == len(buckets):
        return counted
    least, most = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
    return Counted(buckets[first], np.add.reduceat(counts, first), np.where(least == most, least, np.nan))
