"""Files on servers that are fetched whole before they are read, and compared with their checksums."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

from storagering.config import Settings
from storagering.errors import ChecksumError, SourceChangedError, SpecError
from storagering.files import disk_errors
from storagering.formats.blob import Blob, LocalBlob, is_local, local_path
from storagering.formats.checksums import Checksummer
from storagering.formats.remote.filesystem import FilesystemBlob
from storagering.formats.remote.options import scheme_of
from storagering.formats.remote.plain import warn_if_plain
from storagering.formats.remote.reliable import ReliableBlob, ServedBlob
from storagering.formats.remote.xrootd import SCHEMES as XROOTD_SCHEMES
from storagering.formats.remote.xrootd import XRootDBlob
from storagering.formats.source import FileState, Location, Source
from storagering.formats.spool import spool_file
from storagering.urls import redact_url

_BLOCK_BYTES = 8 << 20
_BLOCKS_AHEAD = 2
#: Share of a file's bytes from which on all of them are fetched.
_WHOLE_SHARE = 0.5
_log = logging.getLogger("storagering.remote")


def open_reliably(location: Location, settings: Settings) -> ReliableBlob:
    """The bytes of a location, by ranges, with retries and replicas; raises as `open_blob`."""
    return ReliableBlob(location, settings, lambda url: connect(url, settings))


def connect(url: str, settings: Settings) -> ServedBlob:
    """The bytes at one URL, in one attempt; raises as `open_blob`."""
    scheme = scheme_of(url)
    warn_if_plain(url)
    if is_local(url):
        return LocalBlob(local_path(url))
    if scheme in XROOTD_SCHEMES:
        return XRootDBlob(url, settings)
    if scheme in ("http", "https", "dav", "davs"):
        from storagering.formats.remote.http import HTTPBlob

        return HTTPBlob(url, settings)
    return FilesystemBlob(url, settings)


def open_whole(location: Location, settings: Settings, spool: str) -> Blob:
    """The file, fetched into the spool unless it is there, with `Location.checksum` compared; raises as `open_blob`.

    The state in the location tells the version, so a file that was fetched is opened without any server.
    """
    if location.state is None:
        with closing(open_reliably(location, settings)) as found:
            location = replace(location, state=found.state)
    path = spool_file(spool, _key(location), lambda target: _fetch(location, target, settings), settings)
    return _WholeBlob(path, location)


def wanted_whole(location: Location, blob: Blob, settings: Settings) -> Location:
    """The location as one to be fetched whole, if it is on a server and not too large.

    For formats that are read from beginning to end anyway.
    """
    if location.whole or not isinstance(blob, ReliableBlob):
        return location
    if blob.size > settings.whole_file_bytes and not location.checksum:
        return location
    return _as_whole(location, blob)


def settle_location(
    location: Location, source: Source, names: Iterable[str], settings: Settings, spool: str
) -> Location:
    """How a file is to be read, now that it is known what it holds and what is wanted of it.

    A file on a server is fetched whole where most of its bytes are wanted, or a checksum was given: a
    checksum covers whole files only. Any other is read by ranges. Both must stay as they were found.

    Args:
        source: the location, opened.
        names: the columns that will be read.

    Raises:
        SpecError: a checksum was given for what is not one file.
        ChecksumError: a local file, or one without entries, differs from its checksum.
        SourceChangedError: it is another one by now.
        SourceError: the server failed.
    """
    if location.whole:
        return location
    if source.format == "zarr":  # many files, most of them checked one by one
        if location.checksum:
            raise SpecError(f"{location.shown}: a Zarr store has no checksum as a whole; convert it without one")
        return location
    if is_local(location.url) and not location.replicas:
        if location.checksum:
            _verify(location)
        return location
    whole = bool(location.checksum) or _mostly_wanted(location, source, names, settings)
    if not whole and not location.replicas:
        state = None if location.friends else FileState(location.url, source.nbytes, source.version)
        return replace(location, state=state)
    with closing(open_reliably(location, settings)) as blob:
        if not location.friends and (blob.size, blob.version) != (source.nbytes, source.version):
            raise SourceChangedError(f"{location.shown} changed while it was being read; run the command again")
        settled = _as_whole(location, blob) if whole else replace(location, state=blob.state)
    if whole and not source.entries:
        open_whole(settled, settings, spool).close()  # nothing else would fetch it
    return settled


def _mostly_wanted(location: Location, source: Source, names: Iterable[str], settings: Settings) -> bool:
    if location.friends or not source.entries or source.nbytes > settings.whole_file_bytes:
        return False
    return source.nbytes_of(names) >= _WHOLE_SHARE * source.nbytes


def _as_whole(location: Location, blob: ReliableBlob) -> Location:
    return replace(location, whole=True, state=blob.state, checksum=location.checksum or blob.stated_checksum())


def _verify(location: Location) -> None:
    """Compare a local file with its checksum in one pass."""
    summer = Checksummer(location.checksum.partition(":")[0])
    with closing(LocalBlob(local_path(location.url))) as blob:
        for start in range(0, blob.size, _BLOCK_BYTES):
            summer.update(blob.read(start, min(start + _BLOCK_BYTES, blob.size)))
    summer.compare(location.checksum, location.shown)


class _WholeBlob(LocalBlob):
    """A fetched file under the name and version of the original."""

    def __init__(self, path: Path, location: Location) -> None:
        super().__init__(path)
        assert location.state is not None  # noqa: S101  (set in open_whole)
        self.url, self.version, self.checksum = location.url, location.state.version, location.checksum


def _key(location: Location) -> str:
    state = location.state
    assert state is not None  # noqa: S101  (set in open_whole)
    return "\n".join(("whole", redact_url(location.url), str(state.size), state.version, location.checksum))


def _fetch(location: Location, target: Path, settings: Settings) -> None:
    """Fetch from the first URL that gives the right bytes: one server's copy may be damaged."""
    try:
        _fetch_from(location, target, settings)
    except ChecksumError as error:
        if not location.replicas:
            raise
        _log.warning("%s; going on with %s", error, redact_url(location.replicas[0]))
        _fetch(replace(location, url=location.replicas[0], replicas=location.replicas[1:]), target, settings)


def _fetch_from(location: Location, target: Path, settings: Settings) -> None:
    summer = Checksummer(location.checksum.partition(":")[0]) if location.checksum else None
    with closing(open_reliably(location, settings)) as blob, disk_errors(target, blob.size), target.open("wb") as file:
        for data in _blocks(blob):
            if summer:
                summer.update(data)
            file.write(data)
    if summer:
        summer.compare(location.checksum, redact_url(location.url))


def _blocks(blob: Blob) -> Iterator[memoryview]:
    """The file in order, the next blocks on their way while one is used."""
    spans = iter([(start, min(start + _BLOCK_BYTES, blob.size)) for start in range(0, blob.size, _BLOCK_BYTES)])
    with ThreadPoolExecutor(_BLOCKS_AHEAD, "storagering-fetch") as threads:
        coming = deque(threads.submit(blob.read, *span) for span in islice(spans, _BLOCKS_AHEAD))
        while coming:
            data = coming.popleft().result()
            coming.extend(threads.submit(blob.read, *span) for span in islice(spans, 1))
            yield data
