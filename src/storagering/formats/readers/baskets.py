"""Reading the baskets of a TTree ourselves: whole columns at once, straight into the arrays of a batch.

uproot makes several Python objects for every basket, of which a file has thousands. What is read here are the
branches of plain numbers, fixed arrays, lists of them and strings; their interpretation, places and sizes are
uproot's, and so is every value, bit for bit. Whatever looks unusual is left to uproot (`UnusualBasketError`).

A basket is a key (big-endian, never compressed), the bytes of its entries, and for lists the place of each
entry, counted from the start of the key; all but the key may be compressed, see `blocks`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.numerical import AsDtype
from uproot.interpretation.strings import AsStrings

from storagering.config import Settings
from storagering.errors import CorruptDataError, LimitExceededError
from storagering.formats.limits import check_unpacking
from storagering.formats.readers.blocks import Block, find_blocks, has_checksum, unpack_blocks
from storagering.types import Array

_KEY = struct.Struct(">ihiIhh")  # bytes, version, bytes unpacked, date, bytes of the key, cycle
_HEAD = struct.Struct(">Hiiii")  # version, buffer, size of an entry or of the offsets, entries, end of the entries
_HEAD_FROM_END = _HEAD.size + 1
_ALIGNMENT = 64
#: ROOT itself writes none that are larger.
_MAX_BASKET_BYTES = 1 << 30


class UnusualBasketError(Exception):
    """The basket is not as expected; uproot may know better."""


@dataclass(frozen=True, slots=True)
class BasketColumn:
    """A branch as read here.

    Attributes:
        stored: big-endian type of the numbers.
        shape: shape of one element, ``()`` for a scalar.
        header: bytes in front of the values of each entry; None if the column is no list.
        is_string: whether one or five bytes with the length follow the header.
        seeks, sizes: place and size in the file of every basket.
        entries: entry at which each basket begins, and the end of the last.
        embedded: baskets kept with the tree itself, at the end: bytes of the entries, and places or None.
    """

    name: str
    stored: np.dtype[Any]
    shape: tuple[int, ...]
    header: int | None
    is_string: bool
    seeks: Array
    sizes: Array
    entries: Array
    embedded: tuple[tuple[Array, Array | None], ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers in memory."""
        return self.stored.newbyteorder("<")

    def overlapping(self, start: int, stop: int) -> range:
        """The baskets that hold entries ``start`` to ``stop``."""
        if start >= stop:
            return range(0)
        first = int(np.searchsorted(self.entries, start, "right")) - 1
        return range(first, int(np.searchsorted(self.entries, stop, "left")))

    def ranges(self, numbers: Iterable[int]) -> list[tuple[int, int]]:
        """Bytes of the file that hold those baskets."""
        stored = [n for n in numbers if n < len(self.seeks)]
        return [(int(self.seeks[n]), int(self.seeks[n] + self.sizes[n])) for n in stored]


def describe_branch(name: str, branch: Any) -> BasketColumn | None:
    """How to read an uproot branch here, None if it is to be left to uproot."""
    layout = _layout_of(branch.interpretation)
    if layout is None:
        return None
    of_objects = layout[2] is not None and branch.name.endswith("fBits")
    if of_objects:  # the bits of a TObject take two bytes more where it is referenced
        return None
    if layout[3] and branch.has_member("fIOFeatures") and branch.member("fIOFeatures").member("fIOBits"):
        return None  # places that are to be computed from text
    number = branch._num_normal_baskets
    try:
        entries = np.asarray(branch.entry_offsets, np.int64)
        embedded = tuple((np.asarray(b.data), b.byte_offsets) for b in branch.embedded_baskets)
    except ValueError:  # baskets that do not add up to the entries
        return None
    seeks, sizes = (np.asarray(branch.member(m)[:number], np.int64) for m in ("fBasketSeek", "fBasketBytes"))
    if len(entries) != number + len(embedded) + 1 or entries[0] or (np.diff(entries) < 0).any() or (sizes <= 0).any():
        return None
    return BasketColumn(name, *layout, seeks, sizes, entries, embedded)


def _layout_of(interpretation: Any) -> tuple[np.dtype[Any], tuple[int, ...], int | None, bool] | None:
    if type(interpretation) is AsStrings:
        plain = interpretation.length_bytes == "1-5"
        return (np.dtype("u1"), (), interpretation.header_bytes, True) if plain else None
    header = None
    if type(interpretation) is AsJagged:
        header, interpretation = interpretation.header_bytes, interpretation.content
    if type(interpretation) is not AsDtype:
        return None
    stored, shape = interpretation.from_dtype, ()
    if stored.subdtype is not None:
        stored, shape = stored.subdtype
    unchanged = interpretation.to_dtype == interpretation.from_dtype.newbyteorder("=")
    if not unchanged or stored.names is not None or stored.kind not in "biuf" or 0 in shape:
        return None
    return stored, shape, header, False


class Arena:
    """One piece of memory for many arrays: a large one is mapped in large pages, and so much faster."""

    def __init__(self, nbytes: int) -> None:
        self._memory, self._taken = np.empty(nbytes, np.uint8), 0

    @staticmethod
    def room(nbytes: int) -> int:
        """What an array of that size takes."""
        return -(-nbytes // _ALIGNMENT) * _ALIGNMENT

    def take(self, count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """A new array of shape ``(count, *shape)``."""
        nbytes = count * math.prod(shape) * dtype.itemsize
        begin, self._taken = self._taken, self._taken + self.room(nbytes)
        return self._memory[begin : begin + nbytes].view(dtype).reshape(count, *shape)


class BasketRead:
    """Some entries of one column, found in the file and not yet unpacked.

    Args:
        stored: the bytes of `BasketColumn.ranges`.

    Attributes:
        room: bytes that the values take.

    Raises:
        UnusualBasketError: to be read by uproot.
        CorruptDataError: the bytes are damaged, naming the column.
        LimitExceededError: they claim to be more than any basket holds.
    """

    def __init__(self, column: BasketColumn, start: int, stop: int, stored: Sequence[memoryview], url: str) -> None:
        self._column, self._start, self._stop, self._url = column, start, stop, url
        self._numbers = column.overlapping(start, stop)
        self._each = column.stored.itemsize * math.prod(column.shape)
        try:
            self._keys = [_open_basket(data) for data in stored]
        except (struct.error, ValueError) as error:
            raise self._damaged(str(error)) from error
        if any(key.unpacked > _MAX_BASKET_BYTES for key in self._keys):
            raise LimitExceededError(
                f"{url}: column {column.name!r} has a basket of more than {_MAX_BASKET_BYTES:,} bytes"
            )
        embedded = [n - len(column.seeks) for n in self._numbers if n >= len(column.seeks)]
        bytes_in = [k.border for k in self._keys] + [len(column.embedded[n][0]) for n in embedded]
        if column.header is None and bytes_in != [self._each * n for n in self._entries()]:
            raise UnusualBasketError
        self._count = sum(bytes_in) // self._each
        self.room = Arena.room(self._count * self._each)
        entries = sum(self._entries())
        self.is_mostly_unwanted = self.room > 1 << 20 and 2 * (stop - start) < entries

    def check_sizes(self, settings: Settings) -> None:
        """Refuse baskets that would unpack to far more than honest ones.

        Raises:
            LimitExceededError: see `check_unpacking`.
        """
        for key in self._keys:
            what = f"{self._url}: a basket of column {self._column.name!r}"
            check_unpacking(what, len(key.packed), key.unpacked, settings)

    def _entries(self) -> list[int]:
        """Entries of each basket."""
        numbers = self._numbers
        return np.diff(self._column.entries[numbers.start : numbers.stop + 1]).tolist() if numbers else []

    def _damaged(self, why: str) -> CorruptDataError:
        return CorruptDataError(f"{self._url}: column {self._column.name!r} is damaged ({why}); fetch it again")

    def decode(self, arena: Arena) -> tuple[Array, ...]:
        """The arrays of a batch, values or offsets and values; raises as the class."""
        values = arena.take(self._count, self._column.shape, self._column.dtype)
        if not self._numbers:
            return (values,) if self._column.header is None else (np.zeros(1, np.int64), values)
        try:
            return (self._flat(values),) if self._column.header is None else self._lists(values)
        except (ValueError, OSError, MemoryError) as error:
            raise self._damaged(str(error)) from error

    def _flat(self, values: Array) -> Array:
        filled = 0
        for number in self._numbers:
            data, _ = self._bytes_of(number)
            numbers = data.view(self._column.stored).reshape(-1, *self._column.shape)
            np.copyto(values[filled : filled + len(numbers)], numbers)
            filled += len(numbers)
        first = int(self._column.entries[self._numbers.start])
        return values[self._start - first : self._stop - first]

    def _lists(self, values: Array) -> tuple[Array, Array]:
        entries = self._entries()
        offsets = np.empty(sum(entries) + 1, np.int64)
        offsets[0] = begin = filled = 0
        for number, count in zip(self._numbers, entries, strict=True):
            if not count:
                continue
            data, places = self._bytes_of(number)
            if places is None or len(places) != count + 1:
                raise UnusualBasketError
            content, own = _strip(self._column, data, places, self._each)
            np.add(own, filled, out=offsets[begin : begin + count + 1])
            np.copyto(values[filled : filled + len(content)], content)
            begin, filled = begin + count, filled + len(content)
        first = int(self._column.entries[self._numbers.start])
        chosen = offsets[self._start - first : self._stop - first + 1]
        low, high = int(chosen[0]), int(chosen[-1])
        return chosen - low if low else chosen, values[low:high]

    def _bytes_of(self, number: int) -> tuple[Array, Array | None]:
        """The bytes of a basket's entries, and the place of each (int32, one more than entries) if it is told."""
        if number >= len(self._column.seeks):
            return self._column.embedded[number - len(self._column.seeks)]
        key = self._keys[number - self._numbers.start]
        raw = np.frombuffer(key.unpack(), np.uint8)
        if self._column.header is None or key.border == key.unpacked:
            return raw[: key.border], None
        table = raw[key.border :]
        if len(table) != 4 * (key.entries + 2):
            raise UnusualBasketError
        places = table[4:].view(">i4").astype(np.int32)
        places -= key.length
        places[-1] = key.border
        return raw[: key.border], places


@dataclass(frozen=True, slots=True)
class _Key:
    """A basket, still packed: its bytes behind the key (in blocks, if compressed), and what the key says of them."""

    packed: memoryview
    blocks: list[Block] | None
    unpacked: int
    length: int
    entries: int
    border: int

    def unpack(self) -> Any:
        """The bytes as they were before compression."""
        return self.packed if self.blocks is None else unpack_blocks(self.blocks)


def _open_basket(data: memoryview) -> _Key:
    size, _, unpacked, _, length, _ = _KEY.unpack_from(data)
    _, _, _, entries, last = _HEAD.unpack_from(data, length - _HEAD_FROM_END)
    border = last - length
    if not 0 < length <= size <= len(data) or not 0 <= border <= unpacked or entries < 0:
        raise ValueError("the key of a basket is wrong")
    packed = data[length:size]
    blocks = None if len(packed) == unpacked else find_blocks(packed, unpacked)
    return _Key(packed, blocks, unpacked, length, entries, border)


def is_checked(data: memoryview) -> bool:
    """Whether a basket's bytes carry a checksum (what the key says is compared with them when they are read)."""
    key = _open_basket(data)
    return key.blocks is not None and all(has_checksum(kind, packed) for kind, packed, _ in key.blocks)


def _strip(column: BasketColumn, data: Array, places: Array, each: int) -> tuple[Array, Array]:
    """The values of a basket's lists without what stands before each, and their offsets."""
    assert column.header is not None  # noqa: S101  (for the type checker)
    if places[0] or places[-1] != len(data) or (places[1:] < places[:-1]).any():
        raise ValueError("its lists do not fill their basket")
    skip: Array | int = column.header
    if column.is_string:
        skip = _string_headers(data, places, column.header)
    if not isinstance(skip, int) or skip:
        sizes = np.diff(places) - skip
        if sizes.min(initial=0) < 0:
            raise ValueError("its lists do not fill their basket")
        data = _without(data, places[:-1], skip, each)
        places = np.concatenate(([0], np.cumsum(sizes)))
    if np.bitwise_or.reduce(places) & (each - 1) if each & (each - 1) == 0 else (places % each).any():
        raise ValueError("its lists are not whole numbers of values")
    own = places >> (each.bit_length() - 1) if each & (each - 1) == 0 else places // each
    return data.view(column.stored).reshape(-1, *column.shape), own


def _string_headers(data: Array, places: Array, header: int) -> Array:
    """Bytes before the text of each string: a header, and one or five for the length, which must be right."""
    begins, sizes = places[:-1] + header, np.diff(places) - header
    if sizes.min(initial=0) < 0:
        raise ValueError("its strings do not fill their basket")
    some = sizes > 0  # ROOT stores nothing at all for an empty C string
    told = np.zeros(len(sizes), np.int64)
    told[some] = data[begins[some]]
    long = told == 255
    skip = np.where(long, 5, some.astype(np.int64))
    if long.any():
        if (sizes[long] < 5).any():
            raise ValueError("its strings do not fill their basket")
        told[long] = data[begins[long][:, None] + np.arange(1, 5)].copy().view(">i4").reshape(-1)
    if not np.array_equal(told, sizes - skip):
        raise ValueError("its strings are not as long as they say")
    return skip + header


def _without(data: Array, places: Array, skip: Array | int, each: int) -> Array:
    """The bytes without the ``skip`` first ones at each place, in as large units as divide all."""
    if isinstance(skip, int):
        unit = math.gcd(skip, each, 8)
        units = data.view(f"u{unit}")
        keep = np.ones(len(units), np.bool_)
        for step in range(skip // unit):
            keep[places // unit + step] = False
        return units[keep].view(np.uint8)
    keep = np.ones(len(data), np.bool_)
    for step in range(int(skip.max())):
        keep[places[skip > step] + step] = False
    return data[keep]
