"""Datasets as Arrow streams for DuckDB: read through our own checked readers, a few chunks ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import pyarrow as pa

from storagering.cache.access import ChunkAccess
from storagering.cache.dataset import Dataset
from storagering.cache.store import read_batch
from storagering.cache.tally import Tally
from storagering.formats.arrow import arrow_type, to_arrow
from storagering.formats.forms import UnsupportedTypeError
from storagering.types import Chunk, Column, Schema

_CHUNKS_AHEAD = 4


class DatasetStream:
    """What DuckDB scans: each scan starts a new stream over the chunks.

    Args:
        chunks: that can hold what is looked for; the others are not opened.

    Attributes:
        error: what reading raised, if anything; DuckDB turns it into an error of its own.
        read: where the chunks start that were read.
    """

    def __init__(
        self, dataset: Dataset, columns: Sequence[Column], threads: int, chunks: Sequence[Chunk] | None = None
    ) -> None:
        self.dataset = dataset
        self._chunks = dataset.manifest.chunks if chunks is None else chunks
        self._schema = Schema(tuple(columns))
        self._threads = threads
        self._arrow = pa.schema([(c.name, _sql_type_of(c)) for c in columns])
        self.error: Exception | None = None
        self.read: set[int] = set()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any:
        reader = pa.RecordBatchReader.from_batches(self._arrow, self._batches())
        return reader.__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        waiting: deque[Future[pa.RecordBatch]] = deque()
        dataset, names = self.dataset, self._schema.names
        with (
            dataset.access() as access,
            dataset.tally(access, "sql", names) as tally,
            ThreadPoolExecutor(self._threads, "storagering-sql") as threads,
        ):
            try:
                for chunk in self._chunks:
                    waiting.append(threads.submit(self._read, access, tally, chunk))
                    if len(waiting) > _CHUNKS_AHEAD:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except Exception as error:
                self.error = error
                raise
            finally:
                for future in waiting:
                    future.cancel()

    def _read(self, access: ChunkAccess, tally: Tally, chunk: Chunk) -> pa.RecordBatch:
        reader = access.open(chunk)
        tally.add(reader, chunk.num_entries)
        self.read.add(chunk.start)
        batch = read_batch(reader, self._schema, chunk.num_entries)
        arrays = [
            to_arrow(c, batch.arrays[c.name], len(batch)).cast(kind.type)
            for c, kind in zip(self._schema.columns, self._arrow, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._arrow)


def sql_columns(dataset: Dataset) -> list[Column]:
    """The columns that SQL can see: those that Arrow has a type for."""
    visible = []
    for column in dataset.schema.columns:
        try:
            _sql_type_of(column)
        except UnsupportedTypeError:
            continue
        visible.append(column)
    return visible


def empty_table(columns: Sequence[Column]) -> pa.Table:
    """A table of those columns without rows."""
    return pa.schema([(c.name, _sql_type_of(c)) for c in columns]).empty_table()


@lru_cache(maxsize=1 << 14)
def _sql_type_of(column: Column) -> pa.DataType:
    """The type that SQL sees; a query asks for it several times, and datasets have hundreds of columns."""
    return _sql_type(arrow_type(column))


def _sql_type(kind: pa.DataType) -> pa.DataType:
    """DuckDB has no half floats."""
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_large_list(kind):
        return pa.large_list(_sql_type(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_sql_type(kind.value_type), kind.list_size)
    return kind
