"""Taking journals into the catalog: each line once, whatever is killed when.

    ROOT/journals/KIND/NAME.journal      lines of one process: see `storagering.cache.journal`
    ROOT/journals/KIND/DIGEST.parquet    an archive: rows of finished journals, named by the BLAKE3 of its bytes

Why no row is lost, and none comes twice, wherever a process or several are killed:

1. *Every line has a key for ever*: (name of its journal, number in it). Names are random, never used twice, and a
   journal is only ever added to.
2. *Every acknowledged line is in some file at any time.* A journal is removed only while its lock is held shared, so
   nobody writes to it, after an archive of all its lines, read since the lock was had, lies synced under its final
   name. An archive is removed only after a larger one with all its rows lies there so. A kill in between leaves both,
   or a hidden file that is nobody's.
3. *The catalog takes each key once*: rows are inserted unless their key is there. How far a journal was read, and that
   an archive was, is noted in the transaction that inserts the rows: both are there or neither. A catalog that is
   deleted, or restored from last year, reads what it has not noted, and ends with the same rows.
4. *Reading is never confused by a removal.* Journals are read first and archives after them: what vanished in between
   is in an archive that was there before it vanished. If an archive vanishes, they are listed again.

Locks thus save work: two processes that put journals into archives at the same time make archives with common rows.
Only journals and archives of this user, and of this machine where several share the cache, are put into archives.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from storagering.cache.journal import journal_folder, kept_finished, list_journals, read_journal
from storagering.cache.layout import Cache
from storagering.cache.store import digest_of
from storagering.errors import CacheError, CorruptDataError, NotFoundError
from storagering.files import (
    list_directory,
    read_file,
    remove_file,
    rename_file,
    safe_join,
    sync_directory,
    write_new,
)

#: What was read: of a journal to which byte, of an archive all.
TABLES = {"journals": 'kind VARCHAR, name VARCHAR, "offset" BIGINT'}

#: Finished journals that wait for an archive.
_MANY = 16
#: Put into one archive at a time, each with its descriptor open.
_MOST_AT_ONCE = 256
#: Archives of less are always merged, of more never; in between only with as much or more.
_SMALL_BYTES, _LARGE_BYTES = 256 << 10, 32 << 20
#: About how much smaller than journals archives are.
_RATIO = 8
_LIMIT_BYTES = 1 << 30
_ROWS_AT_ONCE = 50_000
_Row = tuple[str, int, Any]
"""Journal, line and record."""
_KEY = (("journal", pa.string()), ("line", pa.int64()))


@dataclass(frozen=True)
class Kind:
    """A kind of journal, and the table that its lines are rows of.

    Attributes:
        name: of both.
        record: dataclass of a line.
        fields: of the table, but for the key (``journal``, ``line``).
    """

    name: str
    record: type
    fields: tuple[tuple[str, pa.DataType], ...]

    @property
    def schema(self) -> pa.Schema:
        """Of archives."""
        return pa.schema([*self.fields, *_KEY])

    def table(self, rows: Sequence[_Row]) -> pa.Table:
        """Lines as Arrow has them."""
        records = [record for _, _, record in rows]
        columns = [pa.array([_plain(getattr(r, name)) for r in records], kind) for name, kind in self.fields]
        key = [pa.array([j for j, _, _ in rows], pa.string()), pa.array([n for _, n, _ in rows], pa.int64())]
        return pa.Table.from_arrays([*columns, *key], schema=self.schema)


def _plain(value: Any) -> Any:
    return list(value.items()) if isinstance(value, dict) else value


def take_in(connection: duckdb.DuckDBPyConnection, cache: Cache, kind: Kind) -> int:
    """Bring a table in line with its journals and archives, and put finished journals into an archive if they are many.

    To be called in a transaction: if that is not committed, nothing has happened that a later call does not make good.

    Returns:
        Number of rows inserted.
    """
    known: dict[str, int] = dict(
        connection.execute('SELECT name, "offset" FROM journals WHERE kind = ?', [kind.name]).fetchall()
    )
    taker = _Taker(connection, cache, kind, known)
    rows = taker.take_journals()
    rows += taker.take_archives()
    with suppress(CacheError):  # no room: they stay journals
        while (found := taker.archive()) is not None:
            rows += found
    taker.note()
    return rows


class _Taker:
    """Reads the files of one kind that are not in the catalog yet."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, cache: Cache, kind: Kind, known: dict[str, int]) -> None:
        self._connection, self._cache, self._kind = connection, cache, kind
        self._folder = journal_folder(cache, kind.name)
        self._known, self._found = known, dict[str, int]()

    def take_journals(self) -> int:
        """Insert the new lines of all journals."""
        rows, waiting = 0, list[_Row]()
        for path in list_journals(self._cache, self._kind.name):
            start = self._known.get(path.name, 0)
            with suppress(NotFoundError):  # it went into an archive
                with suppress(OSError):
                    if path.lstat().st_size == start:
                        self._found[path.name] = start
                        continue
                with kept_finished(path) as finished:
                    waiting += self._read(path, start, finished=finished)
            if len(waiting) >= _ROWS_AT_ONCE:
                rows += self._insert(self._kind.table(waiting))
                waiting.clear()
        return rows + (self._insert(self._kind.table(waiting)) if waiting else 0)

    def _read(self, path: Path, start: int, *, finished: bool) -> list[_Row]:
        try:
            found = read_journal(path, start, finished=finished)
        except (CorruptDataError, CacheError) as error:
            warnings.warn(f"a journal is left out of the catalog: {error}", stacklevel=2)
            self._found[path.name] = start
            return []
        rows, damaged = self._decode(path, found.lines), found.damaged
        damaged += len(found.lines) - len(rows)
        if damaged:
            warnings.warn(f"{damaged} lines of {path} are damaged and left out of the catalog", stacklevel=2)
        self._found[path.name] = found.end
        return rows

    def _decode(self, path: Path, lines: Iterable[Any]) -> list[_Row]:
        rows: list[_Row] = []
        for line in lines:
            with suppress(msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                rows.append((path.stem, line.number, msgspec.json.decode(line.text, type=self._kind.record)))
        return rows

    def take_archives(self) -> int:
        """Insert the rows of archives that are new here."""
        rows, again = 0, True
        while again:
            again = False
            for path in self._archives():
                if path.name in self._found:
                    continue
                try:
                    if path.name not in self._known:
                        rows += self._insert(self._load(path))
                except NotFoundError:  # it went into a larger one, which was there before
                    again = True
                    continue
                except CorruptDataError as error:
                    warnings.warn(f"an archive is left out of the catalog: {error}", stacklevel=2)
                self._found[path.name] = 0
        return rows

    def _archives(self) -> list[Path]:
        return sorted(list_directory(self._folder, "[!.]*.parquet"))

    def _load(self, path: Path) -> pa.Table:
        data = read_file(path, _LIMIT_BYTES)
        if digest_of(data) != path.stem:
            raise CorruptDataError(f"{path} is damaged: its bytes are not those that it is named by")
        try:
            return pq.read_table(pa.BufferReader(data)).select(self._kind.schema.names).cast(self._kind.schema)
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise CorruptDataError(f"{path} cannot be read: {error}") from error

    def _insert(self, rows: pa.Table) -> int:
        """Insert the rows of which the key is not there."""
        name = self._kind.name
        self._connection.register("incoming", rows)
        try:
            done = self._connection.execute(
                f"INSERT INTO {name} BY NAME SELECT DISTINCT ON (journal, line) * FROM incoming "  # noqa: S608  (fixed)
                f"ANTI JOIN {name} USING (journal, line)"
            ).fetchone()
        finally:
            self._connection.unregister("incoming")
        return int(done[0]) if done else 0

    def archive(self) -> int | None:
        """Put finished journals into an archive, with the archives that are no larger.

        Returns:
            Number of rows that were new; None if too few journals are finished.

        Raises:
            CacheError: it cannot be written.
        """
        with ExitStack() as stack:
            done = list(islice(self._finished(stack), _MOST_AT_ONCE))
            if len(done) < _MANY:
                return None
            lines = [row for _, rows in done for row in rows]
            old, tables = self._small_archives(sum(path.stat().st_size for path, _ in done) // _RATIO)
            table = self._sorted(pa.concat_tables([self._kind.table(lines), *tables]))
            kept = self._write(table) if table.num_rows else None
            for path in [path for path in (*(path for path, _ in done), *old) if path != kept]:
                remove_file(path)
                self._found.pop(path.name, None)
        if kept is not None:
            self._found[kept.name] = 0
        return self._insert(table)

    def _finished(self, stack: ExitStack) -> Iterator[tuple[Path, list[_Row]]]:
        """Journals that nobody writes to while the stack is not closed, with all their lines."""
        for path in list_journals(self._cache, self._kind.name):
            ours = _is_own(path) and not self._cache.is_of_another_machine(path.with_suffix(""))
            if ours and stack.enter_context(kept_finished(path)):
                with suppress(CorruptDataError, NotFoundError):  # it was told that it cannot be read
                    lines = read_journal(path, finished=True).lines
                    rows = self._decode(path, lines)
                    if len(rows) == len(lines):  # another release may understand the others
                        yield path, rows

    def _small_archives(self, nbytes: int) -> tuple[list[Path], list[pa.Table]]:
        """Archives to be merged with so many bytes: few remain, and no row is written anew often."""
        paths, tables = [], []
        for path, size in sorted(self._sizes(), key=lambda one: one[1]):
            if size < _SMALL_BYTES or (size <= nbytes and size < _LARGE_BYTES):
                with suppress(CorruptDataError, NotFoundError):
                    tables.append(self._load(path))
                    paths.append(path)
                    nbytes += size
        return paths, tables

    def _sizes(self) -> Iterator[tuple[Path, int]]:
        for path in self._archives():
            with suppress(OSError):
                if _is_own(path):
                    yield path, path.stat().st_size

    def _sorted(self, rows: pa.Table) -> pa.Table:
        """Each key once, in the order of time."""
        self._connection.register("incoming", rows)
        try:
            query = "SELECT * FROM (SELECT DISTINCT ON (journal, line) * FROM incoming) ORDER BY time, journal, line"
            return self._connection.sql(query).to_arrow_table().cast(self._kind.schema)
        finally:
            self._connection.unregister("incoming")

    def _write(self, table: pa.Table) -> Path:
        """An archive, synced under its final name."""
        for leftover in list_directory(self._folder, f".*{self._cache.machine}.new"):  # of one that was killed
            if _is_own(leftover):
                remove_file(leftover)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        target = safe_join(self._folder, f"{digest_of(data)}.parquet")
        hidden = target.with_name(f".{secrets.token_hex(8)}{self._cache.machine}.new")
        write_new(hidden, data)
        rename_file(hidden, target)
        sync_directory(self._folder)
        return target

    def note(self) -> None:
        """Note what is read, of the files that are there."""
        execute, name = self._connection.execute, self._kind.name
        gone = [known for known in self._known if known not in self._found]
        if gone:
            execute("DELETE FROM journals WHERE kind = ? AND list_contains(?, name)", [name, gone])
        changed = [(name, file, at) for file, at in self._found.items() if self._known.get(file) != at]
        if changed:
            names = [file for _, file, _ in changed]
            execute("DELETE FROM journals WHERE kind = ? AND list_contains(?, name)", [name, names])
            self._connection.executemany("INSERT INTO journals VALUES (?, ?, ?)", changed)


def _is_own(path: Path) -> bool:
    with suppress(OSError):
        return path.lstat().st_uid == os.geteuid()
    return False
