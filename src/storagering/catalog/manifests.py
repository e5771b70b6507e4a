"""The catalog's domain of what manifests say: datasets and their versions, columns, chunks, sources."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

import duckdb

from storagering.cache.layout import Cache, check_name
from storagering.cache.manifest import MANIFEST_NAME, earlier_manifest_name, read_manifest
from storagering.cache.quantiles import column_sketch_rows
from storagering.catalog.rows import delete_datasets, insert_rows
from storagering.errors import CacheError, FormatError, InputError, NotFoundError, StorageringError
from storagering.files import safe_join
from storagering.types import ColumnStatistics, Manifest

#: Name -> columns. What begins with ``_`` is the domain's own memory, which no query sees.
TABLES = {
    "datasets": """name VARCHAR, num_entries BIGINT, num_columns BIGINT, num_chunks BIGINT, nbytes BIGINT,
        raw_bytes BIGINT, format VARCHAR, profile VARCHAR, classes VARCHAR[], selection VARCHAR, mix BIGINT,
        digest VARCHAR, version BIGINT, parent VARCHAR, spec_key VARCHAR, created TIMESTAMP WITH TIME ZONE,
        software VARCHAR""",
    "columns": """dataset VARCHAR, position BIGINT, name VARCHAR, dtype VARCHAR, kind VARCHAR, unit VARCHAR,
        doc VARCHAR, mantissa_bits BIGINT, count BIGINT, min DOUBLE, max DOUBLE, mean DOUBLE, std DOUBLE,
        nan_count BIGINT, inf_count BIGINT, zero_count BIGINT, quantiles DOUBLE[],
        histogram STRUCT(low DOUBLE, high DOUBLE, count BIGINT)[]""",
    "chunks": """dataset VARCHAR, chunk BIGINT, start BIGINT, stop BIGINT, file VARCHAR, nbytes BIGINT,
        raw_bytes BIGINT, digest VARCHAR""",
    "source_files": """dataset VARCHAR, source BIGINT, url VARCHAR, label VARCHAR, tree VARCHAR, entries BIGINT,
        nbytes BIGINT, version VARCHAR, format VARCHAR, checksum VARCHAR, verified BOOLEAN""",
    "skipped_sources": "dataset VARCHAR, url VARCHAR, label VARCHAR, reason VARCHAR",
    "skipped_columns": "dataset VARCHAR, name VARCHAR, typename VARCHAR, reason VARCHAR, source VARCHAR",
    "versions": """dataset VARCHAR, version BIGINT, digest VARCHAR, parent VARCHAR, created TIMESTAMP WITH TIME ZONE,
        current BOOLEAN, num_entries BIGINT, num_chunks BIGINT, nbytes BIGINT, num_sources BIGINT, spec_key VARCHAR,
        selection VARCHAR, software VARCHAR""",
    "_manifests": "dataset VARCHAR, stamp VARCHAR",
    # Numbers are compared thirty times as fast as texts are.
    "_digests": "head UBIGINT, dataset VARCHAR, chunk BIGINT",
}
#: Sources of a version are the first of the newest one: appending only adds. Replicas are files of the same size
#: and checksum that some dataset was made from.
VIEWS = {
    "lineage": """SELECT v.dataset, v.version, v.digest, v.parent, v.spec_key, v.selection, v.software,
        coalesce(list(s.url ORDER BY s.source) FILTER (s.url IS NOT NULL), []) AS sources
        FROM versions v LEFT JOIN source_files s ON s.dataset = v.dataset AND s.source < v.num_sources
        GROUP BY v.dataset, v.version, v.digest, v.parent, v.spec_key, v.selection, v.software""",
    "replicas": """SELECT dataset, source, url FROM source_files
        UNION SELECT here.dataset, here.source, there.url FROM source_files here JOIN source_files there
        ON here.checksum = there.checksum AND here.nbytes = there.nbytes AND here.tree = there.tree
        AND here.entries = there.entries AND here.checksum <> ''""",
}
_SOURCE = attrgetter(
    "url", "label", "tree", "entries", "nbytes", "version", "format", "checksum", "verified"
)  # fmt: skip
_SKIPPED_SOURCE = attrgetter("url", "label", "reason")
_SKIPPED_COLUMN = attrgetter("name", "typename", "reason", "source")
_STATISTICS = ("count", "min", "max", "mean", "std", "nan_count", "inf_count", "zero_count")
#: Manifests whose rows are inserted at once.
_BATCH = 256

_Rows = defaultdict[str, list[tuple[Any, ...]]]


def enter(connection: duckdb.DuckDBPyConnection, cache: Cache) -> int:
    """Bring the tables in line with the published manifests: those of crashed processes, those removed.

    A manifest that cannot be read is left out with a warning.

    Returns:
        Number of datasets entered or dropped.
    """
    known = dict(connection.execute("SELECT dataset, stamp FROM _manifests").fetchall())
    present = _present(cache)
    stale = [name for name, stamp in known.items() if present.get(name) != stamp]
    new = sorted(name for name, stamp in present.items() if known.get(name) != stamp)
    _forget(connection, stale)
    entered: set[str] = set()
    for begin in range(0, len(new), _BATCH):
        rows: _Rows = defaultdict(list)
        for name in new[begin : begin + _BATCH]:
            try:
                _add_dataset(rows, cache, name, present[name])
                entered.add(name)
            except StorageringError as error:
                warnings.warn(f"dataset {name!r} is left out of the catalog: {error}", stacklevel=2)
        _insert(connection, rows)
    _insert_digests(connection, sorted(entered))
    return len(entered.union(stale))


def enter_dataset(connection: duckdb.DuckDBPyConnection, cache: Cache, name: str) -> None:
    """Enter one dataset as it is now, replacing what the tables said of that name."""
    _forget(connection, [name])
    rows: _Rows = defaultdict(list)
    with suppress(FileNotFoundError, NotFoundError):  # removed since it was published
        stamp = _stamp(str(cache.path(name)))  # first: should a newer manifest follow, the next sync sees it
        _add_dataset(rows, cache, name, stamp)
    _insert(connection, rows)
    _insert_digests(connection, [name])


def digest_head(digest: str) -> int:
    """The first 64 bits of a digest in hex digits."""
    return int(digest[:16], 16)


def _present(cache: Cache) -> dict[str, str]:
    """The stamps of all published manifests; Path objects would take most of the time."""
    found: dict[str, str] = {}
    folder = cache.root / "datasets"
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return found
    except OSError as error:
        raise CacheError(f"cannot read {folder}: {error.strerror}") from error
    for name in names:
        try:
            found[check_name(name)] = _stamp(f"{folder}/{name}")
        except (InputError, FileNotFoundError, NotADirectoryError):  # no dataset, or removed since it was listed
            continue
        except OSError as error:
            warnings.warn(f"dataset {name!r} is left out of the catalog: {error.strerror}", stacklevel=3)
    return found


def _stamp(folder: str) -> str:
    """Changes whenever another manifest is published under the name."""
    found = os.stat(f"{folder}/{MANIFEST_NAME}")  # noqa: PTH116  (see `_present`)
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _forget(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    delete_datasets(connection, [table for table in TABLES if table != "datasets"], names)
    if names:
        connection.execute("DELETE FROM datasets WHERE name IN (SELECT unnest(?))", [list(names)])


def _insert(connection: duckdb.DuckDBPyConnection, rows: _Rows) -> None:
    for table, some in rows.items():
        insert_rows(connection, table, some)


def _insert_digests(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    """In order, so that DuckDB passes over what a digest is not among."""
    if names:
        statement = """INSERT INTO _digests SELECT ('0x' || digest[:16])::UBIGINT AS head, dataset, chunk FROM chunks
            WHERE dataset IN (SELECT unnest(?)) ORDER BY head"""
        connection.execute(statement, [list(names)])


def _add_dataset(rows: _Rows, cache: Cache, name: str, stamp: str) -> None:
    """Add the rows of one dataset, all of them or none."""
    manifest, folder = cache.manifest(name), cache.path(name)
    if manifest.name != name:
        raise FormatError(f"{folder} holds the manifest of dataset {manifest.name!r}; give the folder that name")
    created = _time_of(folder, MANIFEST_NAME)
    rows["datasets"].append(_dataset_row(manifest, created))
    rows["versions"] += [*_earlier_versions(cache, manifest), _version_row(manifest, created, current=True)]
    numbers = zip(manifest.schema.columns, manifest.statistics, column_sketch_rows(manifest), strict=True)
    for position, (column, found, sketch) in enumerate(numbers):
        facts = (column.name, column.dtype, column.kind, column.unit, column.doc, column.mantissa_bits)
        spread = (sketch["quantiles"], sketch["histogram"])
        rows["columns"].append((name, position, *facts, *_statistics_of(found), *spread))
    rows["chunks"] += [
        (name, number, c.start, c.stop, c.file, c.nbytes, c.raw_bytes, c.digest)
        for number, c in enumerate(manifest.chunks)
    ]
    rows["source_files"] += [(name, number, *_SOURCE(source)) for number, source in enumerate(manifest.sources)]
    rows["skipped_sources"] += [(name, *_SKIPPED_SOURCE(source)) for source in manifest.skipped_sources]
    rows["skipped_columns"] += [(name, *_SKIPPED_COLUMN(column)) for column in manifest.skipped]
    rows["_manifests"].append((name, stamp))


def _dataset_row(manifest: Manifest, created: datetime | None) -> tuple[Any, ...]:
    spec = manifest.spec
    sizes = (sum(c.nbytes for c in manifest.chunks), sum(c.raw_bytes for c in manifest.chunks))
    counts = (manifest.num_entries, len(manifest.schema.columns), len(manifest.chunks))
    made = (spec.format, spec.profile, list(spec.classes), spec.where, spec.mix)
    origin = (manifest.digest, manifest.version, manifest.parent, manifest.spec_key, created, manifest.software)
    return (manifest.name, *counts, *sizes, *made, *origin)


def _version_row(manifest: Manifest, created: datetime | None, *, current: bool) -> tuple[Any, ...]:
    sizes = (manifest.num_entries, len(manifest.chunks), sum(c.nbytes for c in manifest.chunks), len(manifest.sources))
    origin = (manifest.digest, manifest.parent, created, current)
    made = (manifest.spec_key, manifest.spec.where, manifest.software)
    return (manifest.name, manifest.version, *origin, *sizes, *made)


def _earlier_versions(cache: Cache, manifest: Manifest) -> list[tuple[Any, ...]]:
    """Those whose manifests are kept here; a pulled dataset has none."""
    rows, folder = [], cache.path(manifest.name)
    for version in range(1, manifest.version):
        try:
            old = read_manifest(folder, cache.settings.max_manifest_bytes, earlier_manifest_name(version))
        except NotFoundError:
            continue
        except StorageringError as error:
            what = f"version {version} of dataset {manifest.name!r}"
            warnings.warn(f"{what} is left out of the catalog: {error}", stacklevel=2)
            continue
        # Its manifest was written again by the append that followed it.
        rows.append(_version_row(old, _time_of(folder, old.chunk_statistics[0]), current=False))
    return rows


def _statistics_of(found: ColumnStatistics | None) -> tuple[Any, ...]:
    return tuple(getattr(found, key) if found else None for key in _STATISTICS)


def _time_of(folder: Path, file: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(safe_join(folder, file).stat().st_mtime, UTC)
    except OSError:
        return None
