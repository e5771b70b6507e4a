"""Room on a tier: a quota that is kept, by evicting what can be had again and nobody needs.

Whoever is about to write claims the bytes first. A claim that does not fit evicts chunks, by the policy, down to
the low-water mark; chunks that are pinned by a living process, or could not be made again, stay. Pins, claims and
evictions are transactions of one ledger, so a reader that has pinned a file finds it, or finds it gone beforehand.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from storagering.cache.leases import holder_of, is_alive
from storagering.cache.ledger import (
    WHOLE,
    Ledger,
    Resident,
    add_chunks,
    drop_lease,
    forget_chunks,
    forget_filled,
    known_leases,
    pin_whole,
    raise_inflation,
    unpin_files,
)
from storagering.errors import CacheFullError, ConfigError

_POLL_SECONDS = 0.05
_PINNED = "EXISTS (SELECT 1 FROM pins WHERE pins.dataset = chunks.dataset AND pins.file IN ('', chunks.file))"
_PINNED_BY_OTHERS = _PINNED.removesuffix(")") + " AND pins.lease != ?)"
_ORDERS = {
    "lru": "used",
    "lfu": "uses, used",
    "greedy-dual": "priority, used",
    "popularity": "coalesce((SELECT score FROM popularity AS p WHERE p.dataset = chunks.dataset), 0), used",
}
POLICIES = tuple(_ORDERS)


@dataclass(frozen=True)
class Limits:
    """What a tier may hold.

    Attributes:
        quota_bytes: None without limit.
        high_water, low_water: shares of it at which evicting begins and ends.
        wait_seconds: for pins and claims of others to go.
    """

    quota_bytes: int | None = None
    high_water: float = 1.0
    low_water: float = 0.9
    policy: str = "lru"
    wait_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.policy not in _ORDERS:
            raise ConfigError(f"eviction={self.policy!r}: choose one of {', '.join(_ORDERS)}")
        if not 0 < self.low_water <= self.high_water <= 1:
            raise ConfigError(
                f"low_water={self.low_water} and high_water={self.high_water}: 0 < low_water <= high_water <= 1"
            )


class Tier(NamedTuple):
    """What a room is made of.

    Attributes:
        root: folder of the tier, with the leases.
        kept_back: bytes there that are in no ledger.
        give_up: lets go of them, where nobody is at them; False if there was nothing.
        must_stay: why no chunk of a dataset may go, '' if they may.
        remove: takes a dataset's files off the tier.
    """

    root: Path
    ledger: Ledger
    kept_back: Callable[[], int]
    give_up: Callable[[], bool]
    must_stay: Callable[[str], str]
    remove: Callable[[str, Sequence[str]], None]


class Room:
    """The room on a tier, shared by all processes of the node."""

    def __init__(self, tier: Tier, limits: Limits) -> None:
        self._tier, self._limits = tier, limits

    @property
    def quota_bytes(self) -> int | None:
        """What the tier may hold, None without limit."""
        return self._limits.quota_bytes

    @property
    def _high(self) -> int:
        return int((self._limits.quota_bytes or 0) * self._limits.high_water)

    def used_bytes(self) -> int:
        """What lies on the tier and what living processes have claimed."""
        with self._tier.ledger.transaction() as database:
            self._reap(database)
            return self._used(database)

    def claim(self, lease: str, key: str, nbytes: int, give_up: Callable[[], bool] = lambda: False) -> None:
        """Take room for what will be written; a claim under the same key is replaced.

        Args:
            give_up: lets go of something that the caller has claimed itself; False if there is nothing.

        Raises:
            CacheFullError: there is none, naming what is needed, free, the quota and who pins what.
        """
        deadline = time.monotonic() + self._limits.wait_seconds
        while not (room := self._try_claim(lease, key, nbytes)).granted:
            if nbytes <= self._high and give_up():
                continue
            if nbytes <= self._high and self._tier.give_up():
                continue
            if room.hopeless or time.monotonic() > deadline:
                raise self._full(nbytes, room)
            time.sleep(_POLL_SECONDS)

    def settle(self, lease: str, key: str, written: Iterable[Resident]) -> None:
        """What was claimed lies there now."""
        with self._tier.ledger.transaction() as database:
            add_chunks(database, written)
            database.execute("DELETE FROM claims WHERE lease = ? AND key = ?", (lease, key))

    def pin_whole(self, lease: str, dataset: str, nbytes: int) -> bool:
        """Pin all of a dataset of so many bytes, if they fit at once beside what must stay for others."""
        with self._tier.ledger.transaction() as database:
            unpin_files(database, lease, dataset, [WHOLE])
            self._reap(database)
            if not self._fits(database, lease, dataset, nbytes):
                return False
            pin_whole(database, lease, dataset, nbytes)
        return True

    def _fits(self, database: sqlite3.Connection, lease: str, dataset: str, nbytes: int) -> bool:
        return self._limits.quota_bytes is None or self._fixed(database, lease, dataset) + nbytes <= self._high

    def check_possible(self, lease: str, dataset: str, nbytes: int) -> None:
        """Raise CacheFullError if so many bytes of a dataset can never be there at once."""
        with self._tier.ledger.transaction() as database:
            if self._fits(database, lease, dataset, nbytes):
                return
            answer = self._answer(database, lease, nbytes, dataset)
        raise self._full(nbytes, answer)

    def keep_to_quota(self) -> None:
        """Evict what lies there beyond the quota, as it may since before there was one."""
        if self._limits.quota_bytes is not None:
            self.evict(to_bytes=self._high)

    def evict(self, *, to_bytes: int, of: Collection[str] | None = None, policy: str | None = None) -> list[Resident]:
        """Evict until no more than so many bytes are used, of the named datasets or of all; what went."""
        with self._tier.ledger.transaction() as database:
            self._reap(database)
            return self._evict(database, self._used(database) - to_bytes, of, policy)

    def _try_claim(self, lease: str, key: str, nbytes: int) -> _Answer:
        quota = self._limits.quota_bytes
        with self._tier.ledger.transaction() as database:
            database.execute("DELETE FROM claims WHERE lease = ? AND key = ?", (lease, key))
            if quota is not None:
                high = self._high
                if self._used(database) + nbytes > high:
                    self._reap(database)
                used = self._used(database)
                if used + nbytes > high:
                    goal = max(0, min(int(quota * self._limits.low_water), high - nbytes))
                    self._evict(database, used - goal if nbytes <= high else 0)
                    if self._used(database) + nbytes > high:
                        return self._answer(database, lease, nbytes)
            database.execute("INSERT INTO claims VALUES (?, ?, ?)", (lease, key, nbytes))
        return _Answer(granted=True)

    def _used(self, database: sqlite3.Connection) -> int:
        chunks, claims = database.execute(
            "SELECT (SELECT coalesce(sum(nbytes), 0) FROM chunks), (SELECT coalesce(sum(nbytes), 0) FROM claims)"
        ).fetchone()
        return int(chunks + claims + self._tier.kept_back())

    def _reap(self, database: sqlite3.Connection) -> None:
        """Forget the pins and claims of processes that are dead."""
        for lease in known_leases(database):
            if not is_alive(self._tier.root, lease):
                drop_lease(database, lease)
                forget_filled(database)  # it may have died between the disk and the ledger

    def _evict(
        self,
        database: sqlite3.Connection,
        nbytes: int,
        of: Collection[str] | None = None,
        policy: str | None = None,
    ) -> list[Resident]:
        """Evict at least so many bytes, if there are; what went."""
        gone: dict[str, list[Resident]] = {}
        must_stay = cache(self._tier.must_stay)
        for chunk, priority in self._victims(database, policy or self._limits.policy):
            if nbytes <= 0:
                break
            if (of is not None and chunk.dataset not in of) or must_stay(chunk.dataset):
                continue
            gone.setdefault(chunk.dataset, []).append(chunk)
            nbytes -= chunk.nbytes
            raise_inflation(database, priority)
        for dataset, chunks in gone.items():
            files = [chunk.file for chunk in chunks]
            self._tier.remove(dataset, files)
            forget_chunks(database, dataset, files)
        return [chunk for chunks in gone.values() for chunk in chunks]

    def _victims(self, database: sqlite3.Connection, policy: str) -> Iterator[tuple[Resident, float]]:
        rows = database.execute(
            "SELECT dataset, file, nbytes, cost, priority FROM chunks "  # noqa: S608  (a text of our own)
            f"WHERE NOT {_PINNED} ORDER BY {_ORDERS[policy]}, dataset, file"
        ).fetchall()
        return ((Resident(*row[:4]), row[4]) for row in rows)

    def _fixed(self, database: sqlite3.Connection, lease: str, dataset: str) -> int:
        """Bytes that cannot make room for a dataset: pinned or claimed by others, or not to be had again."""
        (claims,) = database.execute(
            "SELECT coalesce(sum(nbytes), 0) FROM claims WHERE lease != ?", (lease,)
        ).fetchone()
        rows = database.execute(
            f"SELECT dataset, sum(nbytes), sum(CASE WHEN {_PINNED_BY_OTHERS} THEN nbytes ELSE 0 END) FROM chunks "  # noqa: S608
            "GROUP BY dataset",
            (lease,),
        ).fetchall()
        others = {
            name: total if name != dataset and self._tier.must_stay(name) else pinned for name, total, pinned in rows
        }
        for name, promised in database.execute(
            "SELECT dataset, max(nbytes) FROM pins WHERE lease != ? GROUP BY dataset", (lease,)
        ):
            others[name] = max(others.get(name, 0), promised)  # what is not there yet is coming
        others.pop(dataset, None)
        return int(claims + sum(others.values()))

    def _answer(self, database: sqlite3.Connection, lease: str, nbytes: int, dataset: str = "") -> _Answer:
        """A refusal, with its reasons; hopeless if it would not help that all others let go."""
        rows = database.execute(
            "SELECT DISTINCT pins.lease, chunks.dataset FROM pins JOIN chunks ON pins.dataset = chunks.dataset "
            "AND pins.file IN ('', chunks.file) WHERE pins.lease != ? UNION SELECT lease, '' FROM claims "
            "WHERE lease != ?",
            (lease, lease),
        ).fetchall()
        names = [name for (name,) in database.execute("SELECT DISTINCT dataset FROM chunks").fetchall()]
        staying = {name: why for name in names if name != dataset and (why := self._tier.must_stay(name))}
        return _Answer(
            granted=False,
            hopeless=nbytes > self._high or not rows,
            used=self._used(database),
            holders=tuple(sorted((name, lease) for lease, name in rows)),
            staying=tuple(sorted(staying.items())),
        )

    def _full(self, nbytes: int, answer: _Answer) -> CacheFullError:
        quota = self._limits.quota_bytes or 0
        reasons = [f"{name} must stay: {why}" for name, why in answer.staying[:3]]
        for name, lease in answer.holders[:8]:
            reasons.append(f"{name or 'room'} is held by {holder_of(self._tier.root, lease) or lease}")
        if kept_back := self._tier.kept_back():
            reasons.append(f"interrupted builds hold {kept_back:,} bytes, which 'storagering gc --unfinished' frees")
        if nbytes > self._high:
            reasons = ["they will never fit"]
        told = "; ".join(reasons) or "nothing in it can be evicted"
        return CacheFullError(
            f"the cache {self._tier.root} is full: {nbytes:,} bytes are needed, {max(0, quota - answer.used):,} are "
            f"free of its quota of {quota:,} ({told}); raise --quota, or see what 'storagering du' lists"
        )


class _Answer(NamedTuple):
    granted: bool
    hopeless: bool = False
    used: int = 0
    holders: tuple[tuple[str, str], ...] = ()
    staying: tuple[tuple[str, str], ...] = ()
