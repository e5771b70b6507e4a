"""Imported logs on disk: CACHE/logs/KIND/DIGEST.parquet, one a file that was imported, never changed.

These files are what is known of the grid; the catalog's tables are made from them. DIGEST is that of the file's
contents, unpacked: importing the same records twice finds them there.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from storagering.cache.layout import Cache
from storagering.cache.root import check_folder, make_folder
from storagering.catalog.gridlogs.kinds import Kind, Row
from storagering.catalog.gridlogs.values import FLAG, FLOAT, INT, TEXT, TIME
from storagering.errors import CorruptDataError
from storagering.files import list_directory, replace_file, safe_join

_FOLDER = "logs"
_SUFFIX = ".parquet"
_KEY = b"storagering.log"
_ROWS = 50_000
_ZSTD_LEVEL = 3
_TYPES = {
    TEXT: pa.string(),
    INT: pa.int64(),
    FLOAT: pa.float64(),
    TIME: pa.timestamp("us", tz="UTC"),
    FLAG: pa.bool_(),
}


@dataclass(frozen=True)
class LogFile:
    """One imported file.

    Attributes:
        source: where it came from, without secrets.
        imported: when, as ISO 8601.
        records: rows that it gave.
        bad: records that could not be taken.
    """

    kind: str
    digest: str
    source: str
    imported: str
    software: str
    records: int = 0
    bad: int = 0


class LogWriter:
    """Takes the rows of one file; nothing is on disk before `publish`. What is compressed waits in memory."""

    def __init__(self, cache: Cache, kind: Kind) -> None:
        self._cache, self._kind = cache, kind
        self._schema = pa.schema([(one.name, _TYPES[one.type]) for one in kind.fields])
        self._sink = io.BytesIO()
        options = {"compression": "zstd", "compression_level": _ZSTD_LEVEL, "write_page_checksum": True}
        self._writer = pq.ParquetWriter(self._sink, self._schema, **options)
        self._rows: list[Row] = []
        self.records = 0

    def add(self, row: Row) -> None:
        """One more row."""
        self._rows.append(row)
        self.records += 1
        if len(self._rows) >= _ROWS:
            self._flush()

    def publish(self, log: LogFile) -> None:
        """Put the file into the cache, whole or not at all.

        Raises:
            CacheError: the disk refuses, or the folder cannot be trusted.
        """
        self._flush()
        self._writer.add_key_value_metadata({_KEY.decode(): msgspec.json.encode(asdict(log)).decode()})
        self._writer.close()
        for folder in (_top(self._cache), _top(self._cache) / self._kind.name):
            make_folder(folder, shared=self._cache.settings.shared)
        replace_file(log_path(self._cache, self._kind.name, log.digest), self._sink.getvalue())

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def log_path(cache: Cache, kind: str, digest: str) -> Path:
    """Where a file of that digest lies, or would lie."""
    return safe_join(_top(cache), kind, digest + _SUFFIX)


def list_logs(cache: Cache, kind: str) -> dict[str, Path]:
    """The imported files of a kind: digest -> path.

    Raises:
        CacheError: a folder is a link, or another user can write there.
    """
    folder = _top(cache) / kind
    if any(check_folder(one, shared=cache.settings.shared) is None for one in (_top(cache), folder)):
        return {}
    return {path.stem: path for path in sorted(list_directory(folder, f"[!.]*{_SUFFIX}")) if not path.is_symlink()}


def read_log(path: Path) -> tuple[LogFile, Iterator[pa.RecordBatch]]:
    """An imported file: what it is, and its rows.

    Raises:
        CorruptDataError: it is damaged, also while its rows are read.
    """
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True, memory_map=False)
        log = msgspec.json.decode((file.metadata.metadata or {})[_KEY], type=LogFile)
    except (pa.ArrowException, OSError, LookupError, msgspec.DecodeError) as error:
        raise _damaged(path, error) from error
    return log, _batches(path, file)


def _batches(path: Path, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    with file:
        try:
            yield from file.iter_batches(_ROWS)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CorruptDataError:
    text: Any = str(error).splitlines() or [type(error).__name__]
    return CorruptDataError(f"{path} is damaged ({text[0]}): remove it and import its source again")


def _top(cache: Cache) -> Path:
    return cache.root / _FOLDER
