"""The files of a Zarr store by their keys: in a folder, below a URL, or in a zip file."""

from __future__ import annotations

import io
import os
import re
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import fsspec

from storagering.config import Settings
from storagering.errors import CorruptDataError, FormatError, NotFoundError, SourceError, StorageringError
from storagering.formats.blob import Blob, BlobFile, open_blob
from storagering.formats.remote.errors import source_errors
from storagering.formats.remote.options import scheme_of, storage_options
from storagering.formats.remote.retry import with_retries
from storagering.formats.source import Location
from storagering.types import sha256_hex
from storagering.urls import redact_url

METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")
_CHUNK_NAME = re.compile(r"c|\d+(?:\.\d+)*")
#: Servers on which files cannot be listed.
_UNLISTED = ("http", "https")
#: What tells one state of a file from another, on different file systems.
_TOKENS = ("ETag", "mtime", "LastModified")


class Keys(ABC):
    """Read-only access to the files of a store.

    Attributes:
        url: where the store is; may hold secrets.
        nbytes: size of all files together, 0 if unknown.
        version: changes with any file; '' if unknown.
        listed: key -> (size, token of its state); None where files cannot be listed.
        checked: whether every file is compared with a checksum when it is read.
    """

    url: str
    nbytes: int
    version: str
    listed: Mapping[str, tuple[int, str]] | None
    checked: bool

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of all files below each folder that has any."""
        found: dict[str, int] = {}
        for key, (size, _) in (self.listed or {}).items():
            while key:
                key = key.rpartition("/")[0]
                found[key] = found.get(key, 0) + size
        return found

    @abstractmethod
    def read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes | None:
        """Bytes of a file, all or a slice as Python counts (also from the end); None if there is no such file.

        Raises:
            CorruptDataError: it is damaged.
            SourceError: the server failed.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the files back."""


class FolderKeys(Keys):
    """A folder on disk or on a server."""

    checked = False

    def __init__(self, location: Location, settings: Settings) -> None:
        self.url = location.url
        self._location, self._settings = location, settings
        self._bases = [location.url, *location.replicas]
        local = scheme_of(location.url) in ("", "file")
        self.listed = _list_local(Path(location.url.removeprefix("file://"))) if local else self._list_remote()
        self.nbytes = sum(size for size, _ in (self.listed or {}).values())
        self.version = "" if self.listed is None else sha256_hex(repr(sorted(self.listed.items())).encode())[:32]

    def read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes | None:
        if self.listed is not None and key not in self.listed:
            return None
        try:
            blob = open_blob(self._place(key), self._settings)
        except NotFoundError:
            return None
        try:
            first, last, _ = slice(start, stop).indices(blob.size)
            return bytes(blob.read(first, max(first, last)))
        finally:
            blob.close()

    def close(self) -> None:
        """See `Keys.close`; no file is open between reads."""

    def _place(self, key: str) -> Location:
        parts = [base.partition("?") for base in self._bases]  # a token follows the path
        urls = [f"{path.rstrip('/')}/{key}{mark}{query}" for path, mark, query in parts]
        return replace(
            self._location, url=urls[0], replicas=tuple(urls[1:]), checksum="", friends=(), whole=False, state=None
        )

    def _list_remote(self) -> dict[str, tuple[int, str]] | None:
        if scheme_of(self.url) in _UNLISTED:
            return None
        failure: SourceError | None = None
        for number, url in enumerate(self._bases):
            try:
                found = with_retries(partial(_list_server, url, self._settings), self._settings)
            except SourceError as error:
                failure = failure or error
            else:
                self._bases = self._bases[number:] + self._bases[:number]  # those that fail come last from now on
                return found
        assert failure is not None  # noqa: S101  (there is a URL)
        raise failure


def _list_server(url: str, settings: Settings) -> dict[str, tuple[int, str]]:
    """All files below a URL; fsspec's ``find`` passes over folders that it fails to list."""
    found = {}
    with source_errors(url):
        filesystem, prefix = fsspec.core.url_to_fs(url, **storage_options(url, settings))
        filesystem.invalidate_cache()  # or it tells what was there before
        base = prefix.rstrip("/")
        folders = [base]
        while folders:
            for info in filesystem.ls(folders.pop(), detail=True):
                name = str(info["name"]).rstrip("/")
                if info["type"] != "directory":
                    token = next((info[n] for n in _TOKENS if info.get(n)), "")
                    found[name.removeprefix(base).lstrip("/")] = (int(info.get("size") or 0), str(token))
                elif name.startswith(f"{base}/"):
                    folders.append(name)
    return dict(sorted(found.items()))


def _list_local(folder: Path) -> dict[str, tuple[int, str]]:
    found = {}
    with source_errors(str(folder)):
        for place, folders, names in os.walk(folder):
            folders.sort()
            for path in (Path(place, name) for name in sorted(names)):
                state = path.stat()
                found[path.relative_to(folder).as_posix()] = (state.st_size, str(state.st_mtime_ns))
    return found


class ZipKeys(Keys):
    """A zip file, whose members carry checksums; the store may lie in a folder inside it."""

    checked = True

    def __init__(self, blob: Blob) -> None:
        self.url, self.nbytes, self.version = blob.url, blob.size, blob.version
        self._blob = blob
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(io.BufferedReader(BlobFile(blob), 64 << 10))
        except StorageringError:
            raise
        except Exception as error:
            raise CorruptDataError(f"{redact_url(blob.url)} is a damaged zip file ({error}); fetch it again") from error
        tops = [n.rpartition("/")[0] for n in self._zip.namelist() if n.rpartition("/")[2] in METADATA]
        if not tops:
            raise FormatError(f"{redact_url(blob.url)} is a zip file without a Zarr store")
        top = min(tops, key=len)
        self._prefix = f"{top}/" if top else ""
        members = [i for i in self._zip.infolist() if i.filename.startswith(self._prefix) and not i.is_dir()]
        self.listed: dict[str, tuple[int, str]] = {
            i.filename.removeprefix(self._prefix): (i.file_size, str(i.CRC)) for i in members
        }
        self._last: tuple[str, bytes] = ("", b"")

    def read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes | None:
        if key not in self.listed:
            return None
        with self._lock:
            if self._last[0] != key:
                try:
                    self._last = (key, self._zip.read(self._prefix + key))
                except StorageringError:
                    raise
                except Exception as error:
                    raise CorruptDataError(f"{key!r} is damaged ({error})") from error
            return self._last[1][start:stop]

    def close(self) -> None:
        self._blob.close()


def is_chunk(key: str) -> bool:
    """Whether a key looks like one of array data."""
    return _CHUNK_NAME.fullmatch(key.rpartition("/")[2]) is not None
