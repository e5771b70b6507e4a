"""What is known of a cache's data, asked from Python."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import duckdb
import pyarrow as pa

from storagering.cache.layout import Cache, open_cache
from storagering.catalog.index import open_snapshot, read_tables, rebuild_catalog, sync_catalog, use_catalog
from storagering.catalog.manifests import digest_head
from storagering.catalog.query import query_tables
from storagering.config import Settings, load_settings
from storagering.errors import InputError, NotFoundError, nearest_names

_Result = TypeVar("_Result")
_DIGITS = 64


@dataclass(frozen=True, slots=True)
class KnownChunk:
    """A chunk as the catalog knows it.

    Attributes:
        chunk: its number in the dataset.
        start, stop: its entries.
        nbytes, raw_bytes: size of the file, and decoded.
        digest: BLAKE3 of the file.
    """

    dataset: str
    chunk: int
    start: int
    stop: int
    file: str
    nbytes: int
    raw_bytes: int
    digest: str


class Catalog:
    """Everything known about the data of a cache, as tables.

    Each call sees all files as they are then. In a ``with`` block all calls see the moment at which it was entered,
    or `sync` was last called: they ask a copy, in milliseconds, while others go on writing. Safe to share between
    threads; a forked process takes a copy of its own.

    Args:
        settings: which cache, and the limits of `sql`; those in force without it.

    Raises:
        CacheError: the cache cannot be used.
    """

    def __init__(self, *, settings: Settings | None = None) -> None:
        self._cache: Cache = open_cache(settings or load_settings())
        self._held: duckdb.DuckDBPyConnection | None = None
        self._process = os.getpid()
        #: What was held when a process forked: to close it there would wait for threads that are not there.
        self._inherited: list[duckdb.DuckDBPyConnection | None] = []

    def __enter__(self) -> Self:
        self._hold()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the copy back; the catalog can be asked all the same."""
        if self._held is not None and self._process == os.getpid():
            self._held.close()
        self._held = None

    def sync(self) -> dict[str, int]:
        """Bring the catalog in line with all files, which each call outside of a ``with`` block does anyway.

        Returns:
            What changed: ``manifests`` -> datasets entered or dropped, and so on for each kind of files.

        Raises:
            CacheError: the catalog cannot be written.
        """
        changed = sync_catalog(self._cache)
        if self._held is not None:
            self._hold()
        return changed

    def rebuild(self) -> dict[str, int]:
        """Make the catalog anew from the files; returns and raises as `sync`."""
        changed = rebuild_catalog(self._cache)
        if self._held is not None:
            self._hold()
        return changed

    def datasets(self) -> pa.Table:
        """One row for each dataset, in the order of their names; sizes in bytes."""
        return self._ask("SELECT * FROM datasets ORDER BY name")

    def versions(self, dataset: str) -> pa.Table:
        """The versions of a dataset that are known here, oldest first. Raises NotFoundError."""
        return self._of(dataset, "SELECT * FROM versions WHERE dataset = ? ORDER BY version")

    def columns(self, dataset: str) -> pa.Table:
        """The columns of a dataset, in order, with their statistics. Raises NotFoundError."""
        return self._of(dataset, "SELECT * FROM columns WHERE dataset = ? ORDER BY position")

    def chunks(self, dataset: str) -> pa.Table:
        """The chunks of a dataset, in order. Raises NotFoundError."""
        return self._of(dataset, "SELECT * FROM chunks WHERE dataset = ? ORDER BY chunk")

    def sources(self, dataset: str) -> pa.Table:
        """The files that a dataset was made from, in order. Raises NotFoundError."""
        return self._of(dataset, "SELECT * FROM source_files WHERE dataset = ? ORDER BY source")

    def lineage(self, dataset: str) -> pa.Table:
        """How each version of a dataset came to be, oldest first: parent, conversion, selection, release, sources.

        Raises NotFoundError.
        """
        return self._of(dataset, "SELECT * FROM lineage WHERE dataset = ? ORDER BY version")

    def residents(self, dataset: str | None = None) -> pa.Table:
        """Where the chunks of a dataset, or of all, lie: node, tier (``disk``, ``ram``) and how often they were used.

        Raises NotFoundError.
        """
        order = "ORDER BY dataset, chunk, tier, node"
        if dataset is None:
            return self._ask(f"SELECT * FROM residents {order}")  # noqa: S608  (a constant)
        return self._of(dataset, f"SELECT * FROM residents WHERE dataset = ? {order}")  # noqa: S608  (a constant)

    def chunk(self, dataset: str, number: int) -> KnownChunk:
        """One chunk.

        Raises:
            NotFoundError: there is no such dataset, or it has fewer chunks.
        """
        row = self._use(lambda c: c.execute(_ONE_CHUNK, [dataset, number]).fetchone())
        if row is None:
            raise NotFoundError(f"dataset {dataset!r} has no chunk {number}; it has {self.chunks(dataset).num_rows:,}")
        return KnownChunk(*row)

    def find(self, digest: str) -> tuple[KnownChunk, ...]:
        """The chunks of that digest, in all datasets: none if it is not known here.

        Raises:
            InputError: it is not a digest.
        """
        if len(digest) != _DIGITS or not set(digest) <= set("0123456789abcdef"):
            raise InputError(f"{digest!r} is not a digest of {_DIGITS} lower-case hex digits")

        def find(connection: duckdb.DuckDBPyConnection) -> list[KnownChunk]:
            places = connection.execute(_PLACES, [digest_head(digest)]).fetchall()
            rows = [connection.execute(_ONE_CHUNK, place).fetchone() for place in places]
            return [KnownChunk(*row) for row in rows if row is not None]

        return tuple(chunk for chunk in self._use(find) if chunk.digest == digest)

    def sql(self, query: str) -> pa.Table:
        """Any query, in a sandbox, over the catalog and the data: see `storagering.sql`."""
        return query_tables(query, self._cache, lambda names: self._use(lambda c: read_tables(c, names))).table

    def _of(self, dataset: str, query: str) -> pa.Table:
        table = self._ask(query, dataset)
        if not table.num_rows:
            names = self._ask("SELECT name FROM datasets").column(0).to_pylist()
            if dataset not in names:
                raise NotFoundError(f"no dataset {dataset!r} in {self._cache.root}{nearest_names(dataset, names)}")
        return table

    def _ask(self, query: str, *values: str) -> pa.Table:
        return self._use(lambda connection: connection.sql(query, params=list(values)).to_arrow_table())

    def _use(self, work: Callable[[duckdb.DuckDBPyConnection], _Result]) -> _Result:
        if self._held is None:
            return use_catalog(self._cache, work)
        if self._process != os.getpid():
            self._hold()
        try:
            with self._held.cursor() as cursor:
                return work(cursor)
        except duckdb.Error:  # what was copied is damaged: asked itself, the catalog is made anew
            result = use_catalog(self._cache, work)
            self._hold()
            return result

    def _hold(self) -> None:
        if self._process != os.getpid():
            self._inherited.append(self._held)
            self._held, self._process = None, os.getpid()
        before, self._held = self._held, open_snapshot(self._cache)
        if before is not None:
            before.close()


_ONE_CHUNK = "SELECT * FROM chunks WHERE dataset = ? AND chunk = ?"
_PLACES = "SELECT dataset, chunk FROM _digests WHERE head = ? ORDER BY dataset, chunk"
