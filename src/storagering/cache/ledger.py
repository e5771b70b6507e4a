"""The ledger of a tier: which chunks lie on it, when they were used, and who needs them.

An SQLite database that may be deleted at any time: what lies there is found again by looking, pins and claims
belong to living processes, and only the history of use is lost. Each transaction opens it anew, so that nothing
is shared over a fork; the ledger is asked once for a window of chunks, never for a batch.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from storagering.errors import CacheError, CacheFullError, LockTimeoutError, ReadOnlyCacheError
from storagering.files import free_bytes, make_directory, reach, rename_file, write_new

#: All files of a dataset, in the column ``file`` of a pin.
WHOLE = ""
_BUSY_SECONDS = 60.0
_RETRY_SECONDS = 0.01
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS chunks (
    dataset TEXT, file TEXT, nbytes INTEGER, cost REAL, uses INTEGER, used INTEGER, priority REAL,
    PRIMARY KEY (dataset, file)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pins (
    lease TEXT, dataset TEXT, file TEXT, nbytes INTEGER, PRIMARY KEY (dataset, file, lease)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (lease TEXT, key TEXT, nbytes INTEGER, PRIMARY KEY (lease, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS popularity (dataset TEXT PRIMARY KEY, score REAL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value REAL) WITHOUT ROWID;
COMMIT;
"""


@dataclass(frozen=True)
class Resident:
    """A chunk file that lies on a tier.

    Attributes:
        cost: of having it again, in decoded bytes.
    """

    dataset: str
    file: str
    nbytes: int
    cost: float


class Ledger:
    """The database at a path; made when it is first written.

    Args:
        shared: several machines use it; they share no memory, which WAL needs.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self._path, self._journal = path, "DELETE" if shared else "WAL"

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is done in the block; others wait.

        Raises:
            LockTimeoutError: another process did not end its transaction.
            CacheFullError, ReadOnlyCacheError, CacheError: the disk refuses. A damaged ledger is put aside, and
                the next transaction begins a new one.
        """
        try:
            with closing(self._open()) as database:
                database.execute("BEGIN IMMEDIATE")
                try:
                    yield database
                except BaseException:
                    if database.in_transaction:  # a full disk has rolled it back already
                        database.execute("ROLLBACK")
                    raise
                reach("ledger commit", self._path)
                database.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def is_filled(self) -> bool:
        """Whether it was compared with what lies there since it was made."""
        with self.transaction() as database:
            return bool(_value(database, "filled"))

    def _open(self) -> sqlite3.Connection:
        if self._path.is_symlink():
            raise CacheError(f"{self._path} is a link, and none is followed inside a cache: remove it")
        new = not self._path.exists()
        if new:
            make_directory(self._path.parent)
            with suppress(CacheError):  # another process was faster; SQLite itself would heed the umask
                write_new(self._path)
        database = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            _use_journal(database, self._journal)
            database.execute("PRAGMA synchronous=NORMAL")
            if new or not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                database.executescript(_SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _translated(self, error: sqlite3.Error) -> CacheError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return LockTimeoutError(f"another process held {self._path} for over {_BUSY_SECONDS:g} s")
        if code == sqlite3.SQLITE_FULL:
            free = free_bytes(self._path.parent)
            return CacheFullError(f"the disk is full: {self._path} cannot grow, {free:,} bytes are free")
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            return ReadOnlyCacheError(f"cannot write {self._path}: {error}; set STORAGERING_CACHE to a folder of yours")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or type(error) is sqlite3.DatabaseError:
            self._put_aside()
            return CacheError(f"{self._path} was damaged and is put aside; run the command again")
        return CacheError(f"{self._path}: {error}")

    def _put_aside(self) -> None:
        """Nothing in a damaged ledger is worth a repair."""
        for suffix in ("", "-wal", "-shm"):
            path = self._path.with_name(self._path.name + suffix)
            with suppress(CacheError):
                rename_file(path, path.with_name(f"{path.name}.corrupt"))


def add_chunks(database: sqlite3.Connection, chunks: Iterable[Resident]) -> None:
    """Note files that lie there now; those that were known keep their history."""
    tick, inflation = _tick(database), _value(database, "inflation")
    database.executemany(
        "INSERT INTO chunks VALUES (?, ?, ?, ?, 1, ?, ?) "
        "ON CONFLICT (dataset, file) DO UPDATE SET nbytes = excluded.nbytes, cost = excluded.cost",
        [(c.dataset, c.file, c.nbytes, c.cost, tick, inflation + c.cost / max(1, c.nbytes)) for c in chunks],
    )


def forget_chunks(database: sqlite3.Connection, dataset: str, files: Iterable[str]) -> None:
    """Note that files are gone."""
    database.executemany("DELETE FROM chunks WHERE dataset = ? AND file = ?", [(dataset, file) for file in files])


def touch_chunks(database: sqlite3.Connection, dataset: str, files: Iterable[str]) -> None:
    """Note that files are used. Order is counted, not timed: clocks jump."""
    tick, inflation = _tick(database), _value(database, "inflation")
    database.executemany(
        "UPDATE chunks SET uses = uses + 1, used = ?, priority = ? + cost / max(1, nbytes) "
        "WHERE dataset = ? AND file = ?",
        [(tick, inflation, dataset, file) for file in files],
    )


def pin_files(database: sqlite3.Connection, lease: str, dataset: str, files: Iterable[str]) -> None:
    """The holder of the lease needs these files (`WHOLE` for all of the dataset)."""
    rows = [(lease, dataset, file) for file in files]
    database.executemany("INSERT OR IGNORE INTO pins VALUES (?, ?, ?, 0)", rows)


def pin_whole(database: sqlite3.Connection, lease: str, dataset: str, nbytes: int) -> None:
    """The holder of the lease needs all of a dataset, which takes so many bytes when all of it is there."""
    database.execute("INSERT OR REPLACE INTO pins VALUES (?, ?, ?, ?)", (lease, dataset, WHOLE, nbytes))


def unpin_files(database: sqlite3.Connection, lease: str, dataset: str, files: Iterable[str]) -> None:
    """It needs them no more."""
    database.executemany(
        "DELETE FROM pins WHERE lease = ? AND dataset = ? AND file = ?", [(lease, dataset, file) for file in files]
    )


def drop_lease(database: sqlite3.Connection, lease: str) -> None:
    """Forget the pins and claims of a lease."""
    database.execute("DELETE FROM pins WHERE lease = ?", (lease,))
    database.execute("DELETE FROM claims WHERE lease = ?", (lease,))


def known_leases(database: sqlite3.Connection) -> set[str]:
    """All leases with pins or claims."""
    return {lease for (lease,) in database.execute("SELECT lease FROM pins UNION SELECT lease FROM claims")}


def forget_filled(database: sqlite3.Connection) -> bool:
    """Have the ledger compared with the disk before it is next used; whether that was not due anyway."""
    return database.execute("DELETE FROM state WHERE name = 'filled'").rowcount > 0


def note_filled(database: sqlite3.Connection) -> None:
    """The ledger says what lies on the disk."""
    database.execute("INSERT OR REPLACE INTO state VALUES ('filled', 1)")


def set_popularity(database: sqlite3.Connection, scores: Iterable[tuple[str, float]]) -> None:
    """(dataset, score) for the policy ``popularity``: the lowest go first; those without count as 0."""
    database.executemany("INSERT OR REPLACE INTO popularity VALUES (?, ?)", scores)


def raise_inflation(database: sqlite3.Connection, priority: float) -> None:
    """GreedyDual's clock: what was evicted last sets the worth of what comes next."""
    database.execute("INSERT OR REPLACE INTO state VALUES ('inflation', ?)", (priority,))


def _use_journal(database: sqlite3.Connection, journal: str) -> None:
    """SQLite does not wait by itself for another process that does this to a new file."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            database.execute(f"PRAGMA journal_mode={journal}")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


def _tick(database: sqlite3.Connection) -> int:
    database.execute("INSERT INTO state VALUES ('tick', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1")
    return int(_value(database, "tick"))


def _value(database: sqlite3.Connection, name: str) -> float:
    found: Sequence[float] | None = database.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
    return found[0] if found else 0.0
