"""Parquet files as sources of columns, read by pyarrow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storagering.config import Settings
from storagering.errors import FormatError, TruncatedError
from storagering.formats.blob import Blob
from storagering.formats.readers.arrow_arrays import Flags, declared_flags, found_flags
from storagering.formats.readers.arrow_ipc import arrow_file, see_again
from storagering.formats.readers.arrow_source import ArrowSource, damage
from storagering.formats.source import Storage
from storagering.formats.spool import spool_file
from storagering.urls import redact_url

#: A row group that decodes to more than this is read in steps where only a part of it is wanted.
_WHOLE_BYTES = 64 << 20
_STEP_ENTRIES = 8192


class ParquetSource(ArrowSource):
    """A Parquet file; its blocks are row groups.

    Page checksums are compared where there are some. The footer never has one, so that a Parquet file
    does not count as checked by itself.
    """

    def __init__(self, blob: Blob, settings: Settings, spool: str) -> None:
        self._settings, self._spool = settings, spool
        with damage(blob.url, "its footer"):
            self._parquet = pq.ParquetFile(
                arrow_file(blob),
                page_checksum_verification=True,
                pre_buffer=False,
                buffer_size=1 << 20,
                coerce_int96_timestamp_unit="us",  # in ns, years after 2262 would be others
            )
            metadata = self._parquet.metadata
            _check_types(metadata)
            counts = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
            if any(n < 0 for n in counts) or sum(counts) != metadata.num_rows:
                raise FormatError(f"{redact_url(blob.url)}: its row groups do not add up to {metadata.num_rows:,}")
            schema = self._parquet.schema_arrow
            super().__init__(blob, "parquet", schema, list(accumulate(counts, initial=0)))
            self._leaves = self._find_leaves(schema)

    def close(self) -> None:
        self._parquet.close()
        super().close()

    def storage(self) -> dict[str, Storage]:
        return {name: self._storage_of(leaves) for name, leaves in self._leaves.items()}

    def nbytes_of(self, names: Iterable[str]) -> int:
        return sum(self._storage_of(self._leaves[name]).stored_bytes or 0 for name in names)

    def _storage_of(self, leaves: Sequence[int]) -> Storage:
        metadata = self._parquet.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        chunks = [group.column(leaf) for group in groups for leaf in leaves]
        codecs = sorted({chunk.compression.lower() for chunk in chunks} - {"uncompressed"})
        stored = sum(chunk.total_compressed_size for chunk in chunks)
        return Storage(", ".join(codecs), len(chunks), stored, sum(chunk.total_uncompressed_size for chunk in chunks))

    def _find_leaves(self, schema: pa.Schema) -> dict[str, list[int]]:
        """The column chunks of each column: as many as its type has leaves, in order."""
        first, leaves = 0, {}
        for number, field in enumerate(schema):
            count = _count_leaves(field.type)
            if self._fields[field.name] == number:
                leaves[field.name] = list(range(first, first + count))
            first += count
        if first != self._parquet.metadata.num_columns:
            raise FormatError(f"{redact_url(self.url)}: its columns do not match its schema")
        return leaves

    def _read(self, names: Sequence[str], start: int, stop: int) -> Mapping[str, Any]:
        see_again(self._blob)
        whole: list[int] = []
        tables: list[pa.Table] = []

        def flush() -> None:
            if whole:
                tables.append(self._parquet.read_row_groups(whole, columns=list(names), use_threads=True))
                whole.clear()

        for group, first, last in self._overlapping(start, stop):
            if last - first == self._bounds[group + 1] - self._bounds[group]:
                whole.append(group)
                continue
            flush()
            if self._decoded_bytes(group, names) <= _WHOLE_BYTES:
                tables.append(self._parquet.read_row_group(group, columns=list(names)).slice(first, last - first))
            else:
                tables.append(pa.Table.from_batches(self._steps(group, names, first, last)))
        flush()
        if not tables:
            return {n: pa.chunked_array([], self._schema.field(self._fields[n]).type) for n in names}
        # A name also selects "name.x", and comes twice if it is there twice: the first is the one.
        place = {n: tables[0].schema.names.index(n) for n in names}
        return {n: pa.chunked_array([c for t in tables for c in t.column(place[n]).chunks]) for n in names}

    def _steps(self, group: int, names: Sequence[str], first: int, last: int) -> Iterator[pa.RecordBatch]:
        """Part of a row group, without ever holding more than it."""
        at = 0
        for batch in self._parquet.iter_batches(_STEP_ENTRIES, row_groups=[group], columns=list(names)):
            here, at = at, at + batch.num_rows
            if at > first:
                begin = max(0, first - here)
                yield batch.slice(begin, min(at, last) - here - begin)
            if at >= last:
                return

    def _decoded_bytes(self, group: int, names: Sequence[str]) -> int:
        chunks = self._parquet.metadata.row_group(group)
        return sum(chunks.column(leaf).total_uncompressed_size for n in names for leaf in self._leaves[n])

    def _find_flags(self, name: str, field: pa.Field) -> Flags:
        """From the statistics if these are sure, else by reading the column once a build."""
        depth = len(declared_flags(field))
        known = self._flags_from_statistics(name, depth)
        if known is not None:
            return known

        def fill(path: Path) -> None:
            found = (False,) * depth
            for group in range(len(self._bounds) - 1):
                for batch in self._steps(group, [name], 0, self._bounds[group + 1] - self._bounds[group]):
                    here = found_flags(batch.column(batch.schema.names.index(name)))
                    found = tuple(a or b for a, b in zip(found, here, strict=True))
            path.write_text(json.dumps(found))

        with damage(self.url, f"column {name!r}"):
            key = f"{self.url} {self.version} {self.nbytes} missing values of {name}"
            return tuple(json.loads(spool_file(self._spool, key, fill, self._settings).read_text()))

    def _flags_from_statistics(self, name: str, depth: int) -> Flags | None:
        """None if they do not tell: empty lists count as missing values there."""
        metadata = self._parquet.metadata
        missing = 0
        for group in range(metadata.num_row_groups):
            for leaf in self._leaves[name]:
                statistics = metadata.row_group(group).column(leaf).statistics
                if statistics is None or not statistics.has_null_count:
                    return None
                missing += statistics.null_count
        if missing and depth > 1:
            return None
        return (missing > 0,) * depth


def open_parquet(blob: Blob, settings: Settings, spool: str) -> ParquetSource:
    """A Parquet file.

    Raises:
        TruncatedError: it does not end as one.
        FormatError: it is encrypted.
    """
    tail = bytes(blob.read(max(0, blob.size - 4), blob.size))
    if tail == b"PARE":
        raise FormatError(f"{redact_url(blob.url)} is an encrypted Parquet file; write it without encryption")
    if tail != b"PAR1" or blob.size < 12:
        raise TruncatedError(f"{redact_url(blob.url)} does not end as a Parquet file does: fetch it again")
    return ParquetSource(blob, settings, spool)


def _check_types(metadata: pq.FileMetaData) -> None:
    """Each column chunk says its type once more; pyarrow ends the process over statistics of another.

    Raises:
        ValueError: they differ.
    """
    kinds = [metadata.schema.column(leaf).physical_type for leaf in range(metadata.num_columns)]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if group.num_columns != len(kinds):
            raise ValueError(f"row group {number} has {group.num_columns} columns, not {len(kinds)}")
        for leaf, kind in enumerate(kinds):
            if (found := group.column(leaf).physical_type) != kind:
                raise ValueError(f"column chunk {leaf} of row group {number} is {found}, its column {kind}")


def _count_leaves(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _count_leaves(kind.storage_type)
    if pa.types.is_struct(kind) or pa.types.is_map(kind):
        return sum(_count_leaves(kind.field(n).type) for n in range(kind.num_fields))
    if pa.types.is_nested(kind) and hasattr(kind, "value_type"):
        return _count_leaves(kind.value_type)
    return 1
