"""Who read what and when: what every simulation begins with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from storagering.errors import SpecError
from storagering.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """n accesses to m items, in the order of time.

    Attributes:
        times: seconds from any moment on (n), never falling.
        items: number of what was read (n), in [0, m): a chunk, a file, a dataset.
        sizes: bytes of each item (m), at least 1.
        groups: number of the dataset of each item (m).
        sites: number of the site that read (n).

    Raises:
        SpecError: the arrays do not fit each other, or values are out of range.
    """

    times: Array
    items: Array
    sizes: Array
    groups: Array
    sites: Array

    def __post_init__(self) -> None:
        kinds = {"times": np.float64, "items": np.int64, "sizes": np.int64, "groups": np.int64, "sites": np.int64}
        for name, kind in kinds.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=kind))
        if not len(self.times) == len(self.items) == len(self.sites) or len(self.sizes) != len(self.groups):
            raise SpecError(
                f"a trace of {len(self.times)} times, {len(self.items)} items and {len(self.sites)} sites, and "
                f"{len(self.sizes)} sizes and {len(self.groups)} groups: give one of each for every access and item"
            )
        if not np.isfinite(self.times).all() or (np.diff(self.times) < 0).any():
            raise SpecError("the times of a trace are not numbers that never fall: sort the accesses by time")
        if len(self.items) and not 0 <= self.items.min() <= self.items.max() < len(self.sizes):
            raise SpecError(f"a trace names items beyond the {len(self.sizes)} that have sizes")
        if (self.sizes < 1).any() or (self.groups < 0).any() or (self.sites < 0).any():
            raise SpecError("a trace has a size below 1, or a negative group or site")

    def __len__(self) -> int:
        return len(self.items)

    @property
    def num_items(self) -> int:
        """Number of items, accessed or not."""
        return len(self.sizes)

    @property
    def footprint_bytes(self) -> int:
        """Bytes of all items that are accessed: a cache as large as this misses each once."""
        return int(self.sizes[np.unique(self.items)].sum())

    @property
    def accessed_bytes(self) -> int:
        """Bytes of all accesses."""
        return int(self.sizes[self.items].sum())

    @property
    def is_uniform(self) -> bool:
        """Whether all items are of one size."""
        return len(self.sizes) == 0 or bool((self.sizes == self.sizes[0]).all())

    def by_site(self) -> Iterator[tuple[Array, Trace]]:
        """For each site the positions of its accesses in the trace, and the trace of them."""
        for site in np.unique(self.sites):
            places = np.flatnonzero(self.sites == site)
            yield places, self if len(places) == len(self) else self.take(places)

    def take(self, places: Array) -> Trace:
        """The trace of some accesses."""
        return Trace(self.times[places], self.items[places], self.sizes, self.groups, self.sites[places])


def next_uses(items: Array) -> Array:
    """For each access (n) the position of the next one to the same item; n if there is none."""
    order = np.argsort(items, kind="stable")
    following = np.full(len(items), len(items), dtype=np.int64)
    same = items[order[1:]] == items[order[:-1]]
    following[order[:-1][same]] = order[1:][same]
    return following
