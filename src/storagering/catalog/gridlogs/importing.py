"""Importing logs: each file becomes one of ours, and every record that could not be taken is told of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from blake3 import blake3

from storagering import __version__
from storagering.cache.layout import Cache, open_cache
from storagering.catalog.gridlogs.kinds import Kind, MissingFieldsError, read_record
from storagering.catalog.gridlogs.reading import opened_log, read_records
from storagering.catalog.gridlogs.registry import KINDS, find_kind
from storagering.catalog.gridlogs.store import LogFile, LogWriter, log_path, read_log
from storagering.catalog.gridlogs.values import RecordError
from storagering.config import Settings, load_settings
from storagering.errors import FormatError, SpecError, nearest_names
from storagering.formats.blob import Blob
from storagering.formats.sources import Sources, resolve_sources
from storagering.urls import redact_url

#: After so many records without a good one, the file is of another kind.
_TRIED = 100
_TOLD = 20
_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class ImportedFile:
    """What became of one file.

    Attributes:
        known: whether its records were there already; nothing was done.
        problems: the first twenty records that could not be taken: where each is, and why.
    """

    log: LogFile
    known: bool
    problems: tuple[str, ...] = ()


def import_logs(
    kind: str, files: Sources, *, settings: Settings | None = None, progress: Callable[[int], None] | None = None
) -> tuple[ImportedFile, ...]:
    """Take files of logs into the catalog: tables ``log_KIND``, ``log_transfers``, ``log_jobs`` and the insights.

    Args:
        kind: ``xrootd``, ``eos``, ``condor``, ``fts``, ``cmssw``, ``jobmonitoring``, ``wmarchive``, ``aso``,
            ``dbs`` or ``phedex``.
        files: paths, patterns, ``@lists`` and URLs of JSON, Avro or CSV, each possibly packed.
        progress: called with the number of files that are done.

    Returns:
        What became of each file. Records that could not be taken are counted there.

    Raises:
        SpecError: no such kind, or a file holds records of another one.
        NotFoundError, SourceError: a file cannot be opened.
        FormatError, CorruptDataError: nothing of a file can be read. Those before it stay imported.
        CacheError: the cache's disk refuses.
    """
    settings = settings or load_settings()
    cache, wanted = open_cache(settings), find_kind(kind)
    done: list[ImportedFile] = []
    for url, _ in resolve_sources(files, settings):
        with opened_log(url, settings) as blob:
            done.append(_import(cache, wanted, blob))
        if progress is not None:
            progress(len(done))
    return tuple(done)


def _import(cache: Cache, kind: Kind, blob: Blob) -> ImportedFile:
    digest = _digest(blob)
    path = log_path(cache, kind.name, digest)
    if path.exists():
        return ImportedFile(read_log(path)[0], known=True)
    log = LogFile(kind.name, digest, redact_url(blob.url), datetime.now(UTC).isoformat(), f"storagering {__version__}")
    writer = LogWriter(cache, kind)
    problems, bad = _take(kind, blob, writer)
    log = replace(log, records=writer.records, bad=bad)
    writer.publish(log)
    return ImportedFile(log, known=False, problems=tuple(problems))


def _take(kind: Kind, blob: Blob, writer: LogWriter) -> tuple[list[str], int]:
    """All good records into the writer; the first problems, and how many there are."""
    problems: list[str] = []
    bad, first = 0, None
    for tried, (place, record) in enumerate(read_records(blob, kind), 1):
        try:
            for row in _rows(kind, record):
                writer.add(row)
        except RecordError as error:
            bad += 1
            first = first or (error, record)
            if len(problems) < _TOLD:
                problems.append(f"{redact_url(blob.url)}, {place}: {error}")
        if tried == _TRIED and not writer.records:
            break
    if first and not writer.records:
        raise _not_of_kind(kind, blob, *first, problems[0])
    return problems, bad


def _rows(kind: Kind, record: Any) -> Iterator[dict[str, Any]]:
    if isinstance(record, RecordError):
        raise record
    yield from read_record(kind, record)


def _not_of_kind(kind: Kind, blob: Blob, error: RecordError, record: Any, problem: str) -> Exception:
    """What is wrong with a file of which no record could be taken."""
    if not isinstance(error, MissingFieldsError):
        return FormatError(f"no record of kind {kind.name!r} could be read; the first: {problem}")
    others = [other.name for other in KINDS.values() if other is not kind and _fits(other, record, error.found)]
    hint = nearest_names(error.wanted[0], error.found)
    if others:
        hint = "; they look like " + " or ".join(map(repr, others))
    return SpecError(f"{redact_url(blob.url)} holds no records of kind {kind.name!r}: {error}{hint}")


def _fits(kind: Kind, record: Any, names: list[str]) -> bool:
    """Whether it is a record of that kind, or names the fields of one as the header of a table does."""
    try:
        return bool(read_record(kind, record))
    except RecordError:
        lowered = {name.lower() for name in names}
        return all(any(name.lower() in lowered for c in group for name in kind.names_of(c)) for group in kind.needs)


def _digest(blob: Blob) -> str:
    digest = blake3()
    for start in range(0, blob.size, _BLOCK_BYTES):
        digest.update(blob.read(start, min(start + _BLOCK_BYTES, blob.size)))
    return digest.hexdigest()
