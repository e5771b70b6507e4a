"""Readers: one module a format. `open_source` finds the right one by content."""

from __future__ import annotations

from storagering.config import Settings
from storagering.errors import FormatError, NotFoundError
from storagering.formats.blob import Blob, is_local, local_path, open_blob
from storagering.formats.detect import PACKED, find_format, zip_format
from storagering.formats.source import Location, Source
from storagering.formats.whole import open_whole, wanted_whole

#: Read from beginning to end on opening, so that a file on a server is best fetched whole before.
_SEQUENTIAL = (*PACKED.values(), "feather", "arrow-stream", "avro", "lhe", "hepmc", "json-lines", "text")


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
    if location.friends:
        from storagering.formats.readers.friends import open_joined

        return open_joined(location, tree, lambda place, name: open_source(place, name, settings, spool))
    try:
        blob = open_blob(location, settings, spool)
    except NotFoundError as error:  # it may be a folder
        return _open_folder(location, tree, settings, error)
    try:
        kind = find_format(blob)
        if kind in _SEQUENTIAL and (settled := wanted_whole(location, blob, settings)) is not location:
            blob.close()
            blob = open_whole(settled, settings, spool)
        return _open(blob, kind, location, tree, settings, spool)
    except BaseException:
        blob.close()
        raise


def _open_folder(location: Location, tree: str | None, settings: Settings, error: NotFoundError) -> Source:
    """A Zarr store that is many files.

    Raises:
        NotFoundError: ``error``, as there is none.
    """
    if is_local(location.url) and not local_path(location.url).is_dir():
        raise error
    from storagering.formats.readers.zarr import open_zarr

    try:
        return open_zarr(location, tree, settings)
    except (NotFoundError, FormatError) as none:
        if is_local(location.url) or "holds no Zarr store" not in str(none):
            raise
        raise error from none


def _open(blob: Blob, kind: str, location: Location, tree: str | None, settings: Settings, spool: str) -> Source:
    if kind in PACKED.values():
        return _open_packed(blob, kind, location, tree, settings, spool)
    if kind == "zip":
        return _open_zip(blob, location, tree, settings, spool)
    if kind in ("root", "hdf5", "npy"):
        return _open_array_file(blob, kind, tree, settings)
    return _open_table(blob, kind, tree, settings, spool)


def _open_packed(
    blob: Blob, packing: str, location: Location, tree: str | None, settings: Settings, spool: str
) -> Source:
    """What is packed in a file, as if it lay there itself."""
    from storagering.formats.readers.unpack import CHECKED, unpack

    inside = unpack(blob, packing, settings, spool)
    try:
        source = _open(inside, find_format(inside), location, tree, settings, spool)
    except BaseException:
        inside.close()
        raise
    source.nbytes = blob.size
    if packing in CHECKED and source.format != "ttree":  # a tree finds out by itself
        source.self_checked = True
    blob.close()
    return source


def _open_zip(blob: Blob, location: Location, tree: str | None, settings: Settings, spool: str) -> Source:
    from storagering.formats.readers.zip_members import open_zip

    with open_zip(blob) as packed:
        kind = zip_format(packed.namelist())
    if kind == "zarr":
        from storagering.formats.readers.zarr import open_zarr

        return open_zarr(blob, tree, settings)
    if kind == "npz":
        from storagering.formats.readers.numpy_arrays import open_npz

        return open_npz(blob, tree, settings, spool)
    raise FormatError(f"{location.shown} is a zip file without arrays; unpack it, and name the files in it")


def _open_array_file(blob: Blob, kind: str, tree: str | None, settings: Settings) -> Source:
    """A file that may hold several tables."""
    if kind == "root":
        from storagering.formats.readers.root import open_root

        return open_root(blob, tree, settings)
    if kind == "hdf5":
        from storagering.formats.readers.hdf5 import open_hdf5

        return open_hdf5(blob, tree, settings)
    from storagering.formats.readers.numpy_arrays import open_npy

    return open_npy(blob, tree)


def _open_table(blob: Blob, kind: str, tree: str | None, settings: Settings, spool: str) -> Source:
    """A file that is one table without a name."""
    from storagering.formats.readers.names import check_no_tree

    check_no_tree(tree, blob.url)
    if kind in ("parquet", "arrow", "arrow-stream", "feather"):
        return _open_arrow(blob, kind, settings, spool)
    if kind == "avro":
        from storagering.formats.readers.avro import open_avro

        return open_avro(blob, settings, spool)
    if kind == "lhe":
        from storagering.formats.readers.lhe import open_lhe

        return open_lhe(blob, settings, spool)
    if kind == "hepmc":
        from storagering.formats.readers.hepmc import open_hepmc

        return open_hepmc(blob, settings, spool)
    if kind == "json-lines":
        from storagering.formats.readers.json_lines import open_json_lines

        return open_json_lines(blob, settings, spool)
    from storagering.formats.readers.delimited import open_delimited

    return open_delimited(blob, settings, spool)


def _open_arrow(blob: Blob, kind: str, settings: Settings, spool: str) -> Source:
    if kind == "parquet":
        from storagering.formats.readers.parquet import open_parquet

        return open_parquet(blob, settings, spool)
    from storagering.formats.readers import arrow_ipc

    if kind == "arrow":
        return arrow_ipc.open_arrow(blob)
    if kind == "feather":
        return arrow_ipc.open_feather_v1(blob, settings, spool)
    return arrow_ipc.open_arrow_stream(blob, settings, spool)
