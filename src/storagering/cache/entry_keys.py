"""What an entry is called, and the key by which it is put in order where entries are mixed.

An entry's id is the number of its source file and its number in there. Its key is a hash of the file's URL, that number
and the seed: entries in the order of their keys are in random order, whoever computes them, and in whichever parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from storagering.types import Array

#: The column of a mixed dataset that tells where its entries come from.
ENTRY_ID = "entry_id"
#: Bits of an id for the number within the source; the number of the source lies above them.
ENTRY_BITS = 40
_MAX_SOURCES = 1 << (63 - ENTRY_BITS)

_GOLDEN, _FIRST, _SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def entry_ids_of(source: int, start: int, stop: int) -> Array:
    """The ids (uint64) of entries ``start`` to ``stop`` of a source."""
    return np.arange(start, stop, dtype=np.uint64) | np.uint64(source << ENTRY_BITS)


def split_ids(ids: Array) -> tuple[Array, Array]:
    """Numbers (int64) of the sources, and of the entries in there."""
    sources = (ids >> np.uint64(ENTRY_BITS)).astype(np.int64)
    return sources, (ids & np.uint64((1 << ENTRY_BITS) - 1)).astype(np.int64)


def fits_in_ids(sources: int, most_entries: int) -> bool:
    """Whether so many sources, with at most so many entries, have ids."""
    return sources <= _MAX_SOURCES and most_entries <= 1 << ENTRY_BITS


def source_keys(seed: int, urls: Sequence[str]) -> Array:
    """Where the keys of each source begin (uint64): a hash of the seed and its URL."""
    digests = [sha256(f"{seed} {url}".encode()).digest()[:8] for url in urls]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def mixing_keys(ids: Array, of_sources: Array) -> Array:
    """The keys (uint64) of entries: uniform, and different within one source.

    They are numbers of the generator SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number
    generators", 2014), which can be had in any order.

    Args:
        of_sources: `source_keys`, by the number that the ids have for the source.
    """
    sources, entries = split_ids(ids)
    keys: Array = of_sources[sources] + (entries.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    keys = (keys ^ (keys >> np.uint64(30))) * _FIRST
    keys = (keys ^ (keys >> np.uint64(27))) * _SECOND
    keys ^= keys >> np.uint64(31)
    return keys
