"""Opening what an exact shuffle takes its entries from: files in the rows layout, or all entries decoded in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from storagering.errors import SpecError
from storagering.loaders.buffers import BufferPool
from storagering.loaders.exact import PackedEntries, RandomRows, SideBySide, Table, is_packed_group
from storagering.loaders.feed import Group
from storagering.loaders.plan import plan_epoch
from storagering.loaders.supply import ChunkSupply
from storagering.loaders.taking import Taking
from storagering.loaders.threads import ThreadCrew
from storagering.loaders.windows import Window, WindowMaker
from storagering.types import Manifest

_CLOSE_SECONDS = 5.0


class RandomAccess:
    """The entries of a dataset that take part, in any order; opened when they are first needed. Safe to use by threads.

    Args:
        limit: bytes that may be held in memory.

    Raises:
        SpecError: what cannot be read entry by entry is more than that.
    """

    def __init__(
        self, manifest: Manifest, groups: Sequence[Group], taking: Taking, pool: BufferPool, threads: int, limit: int
    ) -> None:
        self._groups, self._taking, self._pool, self._threads = groups, taking, pool, threads
        self._packed = [n for n, group in enumerate(groups) if is_packed_group(group, manifest)]
        self._others = [n for n in range(len(groups)) if n not in self._packed]
        self._rows: RandomRows | None = None
        self._lock = threading.Lock()
        _check_fits(manifest, [groups[number] for number in self._others], limit)

    def renew(self, pool: BufferPool) -> None:
        """In a forked process: share nothing with the one that it was forked from."""
        self._pool, self._rows, self._lock = pool, None, threading.Lock()

    def open(self, supply: ChunkSupply, anew: bool) -> RandomRows:
        """Where entries come from: the files, group by group, or memory.

        Args:
            anew: whether what was opened before is of no use any more.
        """
        with self._lock:
            if self._rows is None or anew:
                self._rows = self._open(supply)
            return self._rows

    def _open(self, supply: ChunkSupply) -> RandomRows:
        parts: list[tuple[list[int], RandomRows]] = []
        if self._packed:
            groups = [self._groups[number] for number in self._packed]
            parts.append((self._packed, PackedEntries(groups, supply, self._taking, self._pool)))
        if self._others:
            groups = [self._groups[number] for number in self._others]
            parts.append((self._others, Table(self._read_all(supply, groups), self._pool)))
        return SideBySide(parts)

    def _read_all(self, supply: ChunkSupply, groups: Sequence[Group]) -> Window:
        """All entries that take part, decoded, in the stored order."""
        entries = self._taking.count(supply)
        whole = plan_epoch(
            entries, batch_size=max(1, sum(entries)), window_entries=1, seed=0, epoch=0, shuffle=None, tail="short"
        )
        crew = ThreadCrew(self._threads, "storagering-decode")
        chunks = [chunk for unit in range(len(entries)) for chunk in supply.chunks(unit)]
        try:
            with supply.held(chunks):
                return WindowMaker(supply, groups, self._taking, crew, self._pool).make(whole.share(0, 0, 1))
        finally:
            crew.close(_CLOSE_SECONDS)


def _check_fits(manifest: Manifest, groups: Sequence[Group], limit: int) -> None:
    counts = dict(zip(manifest.schema.names, manifest.statistics, strict=True))
    needed = 0
    for group in groups:
        for column in group.columns:
            found = counts[column.name]
            needed += (found.count if found else 0) * group.dtype.itemsize
    if needed > limit:
        raise SpecError(
            f"shuffle='exact' holds {needed:,} bytes in memory, the limit is {limit:,}; convert with --layout rows, "
            "use shuffle='block', fewer columns, or set STORAGERING_EXACT_SHUFFLE_BYTES"
        )
