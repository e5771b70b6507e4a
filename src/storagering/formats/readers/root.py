"""ROOT files: finding the tree in one. Only here and beside it are ROOT's words (branch, basket, leaf) used."""

from __future__ import annotations

from typing import Any

import numpy as np
import uproot

from storagering.config import Settings
from storagering.errors import FormatError, NotFoundError, TruncatedError, nearest_names
from storagering.formats.blob import Blob
from storagering.formats.readers.rntuple import NtupleSource
from storagering.formats.readers.ttree import TreeSource
from storagering.formats.remote.errors import source_errors
from storagering.formats.source import SeveralTablesError, Source
from storagering.urls import redact_url

_TREE_CLASSES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple", "ROOT::Experimental::RNTuple")
#: Where the first record of a ROOT file may begin (100 in all releases); tells one from text like "root:x:0:0".
_FIRST_RECORDS = range(64, 1024)


def open_root(blob: Blob, tree: str | None, settings: Settings) -> Source:
    """The tree of that name in a ROOT file, or the only one there is; raises as `open_source`."""
    _check_header(blob)
    with source_errors(blob.url):
        file = uproot.open({blob.url: None}, array_cache=None, handler=_bound_to(blob))
        try:
            name = _find_tree(file, tree, blob.url)
            model = file[name]
            kind = NtupleSource if "RNTuple" in file.classname_of(name) else TreeSource
            return kind(blob, name.rpartition(";")[0] or name, model, file, settings)
        except BaseException:
            file.close()
            raise


def _bound_to(blob: Blob) -> type[uproot.source.chunk.Source]:
    """A class, as uproot wants to make the object itself."""
    return type("BoundSource", (_BlobSource,), {"blob": blob})


class _BlobSource(uproot.source.chunk.Source):  # type: ignore[misc]
    """uproot's way to bytes, leading to ours: its own hands out exceptions as data and never retries."""

    blob: Blob
    closed = False

    def __init__(self, file_path: str, **_options: Any) -> None:
        super().__init__()
        self._file_path, self._num_bytes = file_path, self.blob.size

    def chunk(self, start: int, stop: int) -> Any:
        return uproot.source.chunk.Chunk.wrap(self, np.frombuffer(self.blob.read(start, stop), np.uint8), start)

    def chunks(self, ranges: list[tuple[int, int]], notifications: Any) -> list[Any]:
        pieces = zip(ranges, self.blob.read_ranges(ranges), strict=True)
        found = [
            uproot.source.chunk.Chunk.wrap(self, np.frombuffer(data, np.uint8), start) for (start, _), data in pieces
        ]
        for chunk in found:
            notifications.put(chunk)
        return found

    def __enter__(self) -> _BlobSource:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.closed = True
        self.blob.close()


def list_trees(file: Any) -> list[str]:
    """Paths of all trees in an open file, each with its newest cycle only."""
    newest: dict[str, int] = {}
    for key, classname in file.classnames(recursive=True).items():
        if classname in _TREE_CLASSES:
            name, _, cycle = key.rpartition(";")
            newest[name] = max(newest.get(name, 0), int(cycle))
    return [f"{name};{cycle}" for name, cycle in newest.items()]


def _check_header(blob: Blob) -> None:
    head, shown = bytes(blob.read(0, min(64, blob.size))), redact_url(blob.url)
    if head[:4] != b"root" or (len(head) > 11 and int.from_bytes(head[8:12], "big") not in _FIRST_RECORDS):
        raise FormatError(f"{shown} is not a ROOT file (it begins with {head[:8]!r})")
    if len(head) < 64:
        raise TruncatedError(f"{shown} has only {len(head)} bytes: not even a whole header")
    wide = int.from_bytes(head[4:8], "big") >= 1_000_000
    end = int.from_bytes(head[12:20] if wide else head[12:16], "big")
    if blob.size < end:
        raise TruncatedError(f"{shown} has {blob.size:,} bytes, its header says {end:,}: fetch it again")


def _find_tree(file: Any, tree: str | None, url: str) -> str:
    keys, shown = list_trees(file), redact_url(url)
    if not keys:
        raise FormatError(f"{shown} holds no TTree or RNTuple (it holds: {', '.join(file.keys()[:8]) or 'nothing'})")
    names = [key.rpartition(";")[0] for key in keys]
    if tree is None:
        if len(keys) == 1:
            return keys[0]
        raise SeveralTablesError(names, url, "trees")
    matches = [key for key, name in zip(keys, names, strict=True) if tree in (key, name)]
    if not matches:
        raise NotFoundError(f"{shown} holds no tree {tree!r}{nearest_names(tree, names)}")
    return matches[0]
