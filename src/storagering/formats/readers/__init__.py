"""Readers: one module a format. `open_source` finds the right one by content."""

from __future__ import annotations

from storagering.config import Settings
from storagering.errors import FormatError
from storagering.formats.blob import Blob, open_blob
from storagering.formats.source import Location, Source


def open_source(location: Location | str, tree: str | None, settings: Settings, spool: str = "") -> Source:
    """Open the table of that name in a file, or the only one there is; the format is found by content.

    Args:
        spool: folder for files that must be unpacked or fetched whole, shared by all processes of a
            build; a temporary one of this process without it.

    Raises:
        NotFoundError: no such file or table, or several tables and none named (all listed).
        FormatError: a format that nothing here reads, or a file without tables.
        TruncatedError: the file is shorter than its header says.
        SourceError: the server failed.
    """
    if isinstance(location, str):
        location = Location(location)
    blob = open_blob(location, settings)
    try:
        return _open(blob, location, tree, settings, spool)
    except BaseException:
        blob.close()
        raise


def _open(blob: Blob, location: Location, tree: str | None, settings: Settings, spool: str) -> Source:  # noqa: ARG001
    head = bytes(blob.read(0, min(64, blob.size)))
    if head[:4] == b"root":
        from storagering.formats.readers.root import open_root

        return open_root(blob, tree)
    raise FormatError(f"{location.shown} is not a ROOT file (it begins with {head[:8]!r})")
