"""Writers: one module a format, the way back out of the cache."""

from __future__ import annotations

from importlib import import_module
from typing import Literal, get_args

from storagering.errors import SpecError, nearest_names
from storagering.formats.writers.writer import Writer

ExportFormat = Literal["root", "rntuple", "parquet", "hdf5", "zarr", "arrow", "npz"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

_HOMES = {
    "root": ("ttree", "TreeWriter"),
    "rntuple": ("rntuple", "NtupleWriter"),
    "parquet": ("parquet", "ParquetWriter"),
    "hdf5": ("hdf5", "Hdf5Writer"),
    "zarr": ("zarr", "ZarrWriter"),
    "arrow": ("arrow", "ArrowWriter"),
    "npz": ("npz", "NpzWriter"),
}


def writer_class(name: str) -> type[Writer]:
    """The writer of a format; its library is imported only here.

    Raises:
        SpecError: there is none of that name.
    """
    if name not in _HOMES:
        raise SpecError(f"cannot write {name!r}{nearest_names(name, FORMATS, len(FORMATS))}")
    module, kind = _HOMES[name]
    found: type[Writer] = getattr(import_module(f"{__name__}.{module}"), kind)
    return found
