"""Zarr stores of version 2 and 3, read by the zarr library: folders, URLs and zip files."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import zarr

from storagering.config import Settings
from storagering.errors import CorruptDataError, FormatError
from storagering.formats.blob import Blob
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
from storagering.formats.readers.zarr_keys import METADATA, FolderKeys, Keys, ZipKeys, is_chunk
from storagering.formats.readers.zarr_store import StrictStore
from storagering.formats.source import Location, Source, Storage
from storagering.types import Array
from storagering.urls import redact_text, redact_url

#: Chunks that claim to be larger than this decoded are not unpacked; no codec of Zarr makes such.
_MAX_CHUNK_BYTES = 2 << 30


def open_zarr(place: Location | Blob, tree: str | None, settings: Settings) -> Source:
    """The table of that name in a Zarr store, or the only one there is; raises as `open_source`.

    Args:
        place: a folder, or the bytes of a zip file.
    """
    keys: Keys = FolderKeys(place, settings) if isinstance(place, Location) else ZipKeys(place)
    with naming(keys.url):
        nodes = _read_metadata(keys)
        store = StrictStore(keys, {k: v for k, (v, _) in nodes.items()}, fill=settings.fill_absent_chunks)
        hierarchy = _hierarchy({k: parsed for k, (_, parsed) in nodes.items()}, store, keys, settings)
        name, columns = find_table(hierarchy, tree, keys.url)
    checksum = "" if isinstance(place, Location) else place.checksum
    return ZarrSource(keys, name, columns, checksum)


class ZarrSource(HierarchySource):
    """A table of a Zarr store."""

    format = "zarr"

    def __init__(self, keys: Keys, tree: str, columns: Iterable[HierarchyColumn], checksum: str) -> None:
        super().__init__(keys.url, tree, columns)
        self.nbytes, self.version, self.checksum = keys.nbytes, keys.version, checksum
        self.self_checked = self.all_checked
        self._keys = keys

    def close(self) -> None:
        self._keys.close()


_Metadata = dict[str, tuple[bytes, Any]]


def _read_metadata(keys: Keys) -> _Metadata:
    """Key -> (bytes, parsed) of all groups and arrays; from a server without listings as consolidated."""
    if keys.listed is None:
        return _consolidated(keys)
    found = {}
    for key in keys.listed:
        if key.rpartition("/")[2] in METADATA[:-1]:
            found[key] = _parse(keys, key)
    if not found:
        raise FormatError(f"{redact_url(keys.url)} holds no Zarr store")
    arrays = {key.rpartition("/")[0] for key, (_, node) in found.items() if _is_array(key, node)}
    for key in keys.listed:
        if is_chunk(key) and not any(part in arrays for part in _parents(key)):
            raise CorruptDataError(f"{redact_url(keys.url)}: {key!r} belongs to an array whose metadata are lost")
        _check_index(keys, key, found)
    return found


def _check_index(keys: Keys, key: str, found: _Metadata) -> None:
    """Whether all arrays are there that a group's consolidated metadata list."""
    folder, _, name = key.rpartition("/")
    if name == ".zmetadata":
        listed = _parse(keys, key)[1].get("metadata")
    else:
        listed = _nodes_in(found[key][1]) if name == "zarr.json" else None
    for inner, node in (listed or {}).items():
        path = f"{folder}/{inner}".lstrip("/")
        if _is_array(inner, node) and path not in found:
            raise CorruptDataError(
                f"{redact_url(keys.url)}: the array {path.rpartition('/')[0]!r} is listed in {key!r} and not there; "
                "fetch the store again, or write its index anew with zarr.consolidate_metadata"
            )


def _nodes_in(group: Any) -> dict[str, Any] | None:
    """Key -> metadata of what lies in a group of version 3 with consolidated metadata, None without."""
    nodes = (group.get("consolidated_metadata") or {}).get("metadata")
    return None if nodes is None else {f"{path}/zarr.json": node for path, node in nodes.items()}


def _consolidated(keys: Keys) -> _Metadata:
    raw = keys.read("zarr.json")
    if raw is not None:
        _, root = _parse(keys, "zarr.json")
        inner = _nodes_in(root)
        if _is_array("zarr.json", root) or inner is not None:
            packed = {key: (json.dumps(node).encode(), node) for key, node in (inner or {}).items()}
            return {"zarr.json": (raw, root)} | packed
    elif keys.read(".zmetadata") is not None:
        nodes = _parse(keys, ".zmetadata")[1].get("metadata", {})
        return {key: (json.dumps(node).encode(), node) for key, node in nodes.items()}
    elif keys.read(".zarray") is not None:
        return {k: _parse(keys, k) for k in (".zarray", ".zattrs") if keys.read(k) is not None}
    elif keys.read(".zgroup") is None:
        raise FormatError(f"{redact_url(keys.url)} holds no Zarr store")
    raise FormatError(
        f"{redact_url(keys.url)}: its server cannot list the arrays of a Zarr group; write an index into the "
        "store with zarr.consolidate_metadata"
    )


def _parse(keys: Keys, key: str) -> tuple[bytes, Any]:
    raw = keys.read(key)
    try:
        if not isinstance(node := json.loads(raw or b""), dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise CorruptDataError(f"{redact_url(keys.url)}: {key!r} is damaged ({error}); fetch it again") from error
    return raw or b"", node


def _is_array(key: str, node: Any) -> bool:
    return key.endswith(".zarray") or (key.endswith("zarr.json") and node.get("node_type") == "array")


def _parents(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


def _hierarchy(nodes: Mapping[str, Any], store: StrictStore, keys: Keys, settings: Settings) -> Hierarchy:
    arrays: dict[str, StoredArray] = {}
    groups: dict[str, Mapping[str, Any]] = {"": {}}
    for key, node in nodes.items():
        path, _, name = key.rpartition("/")
        said = node.get("attributes") if name == "zarr.json" else nodes.get(f"{path}/.zattrs".lstrip("/"))
        attributes = said if isinstance(said, dict) else {}
        if _is_array(key, node):
            arrays[path] = _open(path, node, attributes, store, keys, settings)
        elif name in ("zarr.json", ".zgroup"):
            groups[path] = attributes
    return Hierarchy(arrays, groups)


def _open(
    path: str, node: Any, attributes: Mapping[str, Any], store: StrictStore, keys: Keys, settings: Settings
) -> StoredArray:
    version = 3 if "node_type" in node else 2
    try:
        with _quiet():
            array = zarr.open_array(store=store, path=path, mode="r", zarr_format=version)
    except Exception as error:  # noqa: BLE001  (zarr raises many kinds on codecs and types that it has not)
        shape = node.get("shape")
        known = isinstance(shape, list) and all(isinstance(n, int) and n >= 0 for n in shape)
        text = redact_text(" ".join(str(error).split()), keys.url)[:300]
        why = f"zarr cannot open it ({type(error).__name__}: {text})"
        return RefusedArray(path, why, tuple(shape) if known else (-1,), attributes)
    return _ZarrArray(path, array, attributes, keys, settings)


class _ZarrArray(StoredArray):
    """An array of a store."""

    def __init__(self, path: str, array: Any, attributes: Mapping[str, Any], keys: Keys, settings: Settings) -> None:
        self._settings = settings
        self.path, self.attributes, self.checked, self._array = path, attributes, keys.checked, array
        self._stored = keys.sizes.get(path)
        self.shape, self.dtype = tuple(array.shape), array.dtype
        if "VariableLengthBytes" in type(array.metadata.dtype if _is_v2(array) else array.metadata.data_type).__name__:
            self.dtype = np.dtype("O", metadata={"vlen": bytes})
        chunk = array.shards or array.chunks
        self.block = int(chunk[0]) if chunk else 0
        self._chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
        too_large = self._chunk_bytes > _MAX_CHUNK_BYTES
        self.reason = f"its chunks claim {self._chunk_bytes:,} bytes each" if too_large else ""

    def storage(self) -> Storage:
        """See `StoredArray.storage`."""
        blocks = -(-self.shape[0] // self.block) if self.block else 1
        return Storage(", ".join(_names_of(self._array)), blocks, self._stored, decoded_bytes(self.shape, self.dtype))

    def read(self, start: int, stop: int) -> Array:
        check_sizes(self, self._chunk_bytes, self._stored, self._settings)
        with _quiet():
            return np.asarray(self._array[start:stop])


def _names_of(array: Any) -> Iterator[str]:
    """What its compressors are called."""
    for codec in array.compressors:
        said = codec.get_config() if hasattr(codec, "get_config") else codec.to_dict()
        yield str(said.get("id") or said.get("name") or "")


def _is_v2(array: Any) -> bool:
    return int(array.metadata.zarr_format) == 2


@contextmanager
def _quiet() -> Iterator[None]:
    """Without zarr's remarks that a codec or type is not in its specification yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
