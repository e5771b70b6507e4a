"""HDF5 files, read by h5py: structured datasets, images, jagged groups, variable-length elements."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from storagering.config import Settings
from storagering.errors import CorruptDataError, FormatError, StorageringError, TruncatedError
from storagering.formats.blob import Blob, BlobFile
from storagering.formats.readers.elements import variable_length
from storagering.formats.readers.hierarchy import (
    Hierarchy,
    HierarchyColumn,
    HierarchySource,
    RefusedArray,
    StoredArray,
    check_sizes,
    decoded_bytes,
    naming,
)
from storagering.formats.readers.hierarchy_tables import find_table
from storagering.formats.remote.options import scheme_of
from storagering.formats.source import Source, Storage
from storagering.types import Array
from storagering.urls import redact_text, redact_url

#: Small reads are of metadata, which lie close together: from a server they are fetched in pages of this size.
_PAGE_BYTES = 64 << 10
_MAX_PAGES = 64
_FLETCHER32 = 3
_IF_MEANT = "if these rows are meant to be the fill value, set STORAGERING_FILL_ABSENT_CHUNKS=1"
#: Filters that pack nothing: shuffle, fletcher32.
_NO_COMPRESSION = (2, _FLETCHER32)
#: Superblocks from this version on go with metadata that all carry checksums.
_CHECKED_SUPERBLOCK = 2


def open_hdf5(blob: Blob, tree: str | None, settings: Settings) -> Source:
    """The table of that name in an HDF5 file, or the only one there is; raises as `open_source`."""
    memory = _BlobMemory(blob)
    try:
        file = h5py.File(memory, "r")
    except StorageringError:
        raise
    except Exception as error:
        raise _not_opened(error, blob) from error
    try:
        with naming(blob.url):
            hierarchy = _Walk(file, memory, settings).hierarchy()
            name, columns = find_table(hierarchy, tree, blob.url)
        return HDF5Source(blob, file, name, columns)
    except StorageringError:
        file.close()
        raise
    except Exception as error:
        file.close()
        raise _not_opened(error, blob) from error


def _not_opened(error: Exception, blob: Blob) -> StorageringError:
    text, shown = redact_text(" ".join(str(error).split()), blob.url)[:300], redact_url(blob.url)
    if "truncated file" in text:
        return TruncatedError(f"{shown} has {blob.size:,} bytes, fewer than its header says ({text}); fetch it again")
    return FormatError(f"{shown} is not a readable HDF5 file ({text})")


class HDF5Source(HierarchySource):
    """A table of an HDF5 file."""

    format = "hdf5"

    def __init__(self, blob: Blob, file: Any, tree: str, columns: Sequence[HierarchyColumn]) -> None:
        super().__init__(blob.url, tree, columns)
        self.nbytes, self.version, self.checksum = blob.size, blob.version, blob.checksum
        self._blob = blob
        self.self_checked = self.all_checked and _superblock(blob) >= _CHECKED_SUPERBLOCK
        # A file that is still open when the interpreter ends makes the HDF5 library crash.
        self._close = weakref.finalize(self, file.close)

    def close(self) -> None:
        self._close()
        self._blob.close()


def _superblock(blob: Blob) -> int:
    return blob.read(8, 9)[0] if bytes(blob.read(0, 4)) == b"\x89HDF" else 0


class _BlobMemory(BlobFile):
    """The file that HDF5 sees: chunks fetched together wait here to be asked for, metadata come in pages."""

    def __init__(self, blob: Blob) -> None:
        super().__init__(blob)
        self._ready: dict[int, memoryview] = {}
        self._pages: dict[int, memoryview] = {}
        self._paged = bool(scheme_of(blob.url))

    def prepare(self, places: Sequence[tuple[int, int]]) -> None:
        """Fetch the chunks at (offset, size), and forget those of the last time."""
        found = self._blob.read_ranges([(offset, offset + size) for offset, size in places]) if places else []
        self._ready = {offset: data for (offset, _), data in zip(places, found, strict=True)}

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        found = self._ready.get(self._at)
        if found is None or len(found) != len(buffer):
            found = self._page(len(buffer)) if self._paged and len(buffer) < _PAGE_BYTES else None
        if found is None:
            return super().readinto(buffer)
        memoryview(buffer).cast("B")[:] = found
        self._at += len(found)
        return len(found)

    def _page(self, size: int) -> memoryview | None:
        number, first = divmod(self._at, _PAGE_BYTES)
        if first + size > _PAGE_BYTES or self._at + size > self._blob.size:
            return None
        if number not in self._pages:
            if len(self._pages) >= _MAX_PAGES:
                self._pages.pop(next(iter(self._pages)))
            start = number * _PAGE_BYTES
            self._pages[number] = self._blob.read(start, min(start + _PAGE_BYTES, self._blob.size))
        return self._pages[number][first : first + size]


class _Walk:
    """Finds all groups and datasets; follows neither links to other files nor soft ones (their targets are found)."""

    def __init__(self, file: Any, memory: _BlobMemory, settings: Settings) -> None:
        self._file, self._memory, self._settings = file, memory, settings
        self._arrays: dict[str, StoredArray] = {}
        self._groups: dict[str, Mapping[str, Any]] = {}

    def hierarchy(self) -> Hierarchy:
        """All that the file holds."""
        self._enter(self._file, "", frozenset())
        return Hierarchy(self._arrays, self._groups)

    def _enter(self, group: Any, path: str, above: frozenset[int]) -> None:
        address = h5py.h5o.get_info(group.id).addr
        attributes = _attributes(group)
        if address in above or attributes.get("CLASS") == b"TINDEX":  # PyTables' search index
            return
        self._groups[path] = attributes
        for name in group:
            inner = f"{path}/{name}" if path else name
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                self._arrays[inner] = RefusedArray(inner, "it is a link to another file")
            elif isinstance(link, h5py.HardLink):
                self._add(group, name, inner, above | {address})

    def _add(self, group: Any, name: str, path: str, above: frozenset[int]) -> None:
        try:
            item = group[name]
        except (KeyError, OSError, RuntimeError) as error:
            raise CorruptDataError(f"{path!r} cannot be opened: {error}") from error
        if isinstance(item, h5py.Group):
            self._enter(item, path, above)
        elif isinstance(item, h5py.Dataset):
            self._arrays[path] = _dataset(item, path, self._memory, self._settings)


def _attributes(item: Any) -> dict[str, Any]:
    found = {}
    for name in item.attrs:
        try:
            value = item.attrs[name]
        except (OSError, TypeError, ValueError, KeyError, RuntimeError):
            continue  # of a type that Python has not
        if isinstance(value, str | bytes | np.generic | np.ndarray):
            found[name] = bytes(value) if isinstance(value, np.bytes_) else value
    return found


def _dataset(item: Any, path: str, memory: _BlobMemory, settings: Settings) -> StoredArray:
    shape = tuple(item.shape or ())
    try:
        dtype = item.dtype
    except (TypeError, ValueError) as error:
        return RefusedArray(path, f"h5py does not know its type ({error})", shape, _attributes(item))
    if item.is_virtual or item.external:
        return RefusedArray(path, "its data lie in another file", shape, _attributes(item))
    return _Dataset(item, path, dtype, memory, settings)


class _Dataset(StoredArray):
    """A dataset."""

    def __init__(self, item: Any, path: str, dtype: np.dtype[Any], memory: _BlobMemory, settings: Settings) -> None:
        self.path, self.dtype, self._item, self._memory, self._settings = path, dtype, item, memory, settings
        self.shape = tuple(item.shape or ())
        self.attributes = _attributes(item)
        self.block = int(item.chunks[0]) if item.chunks else 0
        filters = list(_filters(item))
        missing = [f"{number} ({name})" for number, name in filters if not h5py.h5z.filter_avail(number)]
        self.reason = f"it is compressed by filter {', '.join(missing)}, which h5py has not" if missing else ""
        self.checked = _FLETCHER32 in [number for number, _ in filters] and not _has_heap(dtype)
        self._places: dict[int, list[tuple[int, int]]] | None = None

    def read(self, start: int, stop: int) -> Array:
        self._prepare(start, stop)
        return self._item[start:stop]  # type: ignore[no-any-return]

    def read_fields(self, fields: Sequence[str], start: int, stop: int) -> Array:
        self._prepare(start, stop)
        if len(fields) == len(self.dtype.names or ()):
            return self._item[start:stop]  # type: ignore[no-any-return]
        return self._item.fields(list(fields))[start:stop]  # type: ignore[no-any-return]

    def storage(self) -> Storage:
        level = self._item.compression_opts
        codec = f"{self._item.compression} {level}" if isinstance(level, int) else self._item.compression or ""
        other = [name for number, name in _filters(self._item) if number not in _NO_COMPRESSION]
        blocks = self._item.id.get_num_chunks() if self.block else 1
        stored = int(self._item.id.get_storage_size())
        return Storage(codec or ", ".join(other), blocks, stored, decoded_bytes(self.shape, self.dtype))

    def _prepare(self, start: int, stop: int) -> None:
        """Fetch the chunks of some rows in one go, and refuse those that nobody has ever written."""
        if start >= stop or not math.prod(self.shape):
            return
        if not self.block:
            if not self._item.id.get_storage_size() and not self._settings.fill_absent_chunks:
                raise CorruptDataError(f"it was never written; {_IF_MEANT}")
            return
        if self._places is None:
            self._places = self._find_chunks()
        blocks = range(start // self.block, -(-stop // self.block))
        expected = math.prod(-(-n // c) for n, c in zip(self.shape[1:], self._item.chunks[1:], strict=True))
        places = []
        for block in blocks:
            found = self._places.get(block, [])
            if len(found) < expected and not self._settings.fill_absent_chunks:
                first = block * self.block
                raise CorruptDataError(
                    f"the chunk of rows {first} to {first + self.block} was never written; {_IF_MEANT}"
                )
            places += found
        claimed = math.prod(self._item.chunks) * self.dtype.itemsize
        check_sizes(self, claimed, min((size for _, size in places), default=0), self._settings)
        self._memory.prepare(places)

    def _find_chunks(self) -> dict[int, list[tuple[int, int]]]:
        places: dict[int, list[tuple[int, int]]] = {}

        def add(chunk: Any) -> None:
            place = (int(chunk.byte_offset), int(chunk.size))
            places.setdefault(int(chunk.chunk_offset[0]) // self.block, []).append(place)

        self._item.id.chunk_iter(add)
        return places


def _filters(item: Any) -> Iterator[tuple[int, str]]:
    properties = item.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(number)
        yield int(code), name.decode(errors="replace")


def _has_heap(dtype: np.dtype[Any]) -> bool:
    """Whether elements lie outside their dataset, in a heap without checksums."""
    if dtype.names is not None:
        return any(_has_heap(dtype[name]) for name in dtype.names)
    return variable_length(dtype.subdtype[0] if dtype.subdtype else dtype) is not None
