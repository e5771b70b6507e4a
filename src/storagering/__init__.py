"""Convert ROOT once into a compressed, checksummed node-local cache; train on it for many epochs.

import storagering as sr

dataset = sr.convert("root://server//store/*.root", name="jets")
table = sr.sql("SELECT count(*) FROM jets")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storagering.api import append, convert, fill, pull, verify
    from storagering.cache.dataset import Dataset, open_dataset
    from storagering.catalog.catalog import Catalog
    from storagering.catalog.query import sql
    from storagering.errors import StorageringError
    from storagering.exporting import copy, export
    from storagering.formats.inspect import inspect
    from storagering.housekeeping import du, evict, gc, pin, remove, unpin

__version__ = "0.1.0"
__all__ = [
    "Catalog",
    "Dataset",
    "StorageringError",
    "append",
    "convert",
    "copy",
    "du",
    "evict",
    "export",
    "fill",
    "gc",
    "inspect",
    "open_dataset",
    "pin",
    "pull",
    "remove",
    "sql",
    "unpin",
    "verify",
]

_HOMES = {
    "Catalog": "storagering.catalog.catalog",
    "Dataset": "storagering.cache.dataset",
    "StorageringError": "storagering.errors",
    "append": "storagering.api",
    "convert": "storagering.api",
    "copy": "storagering.exporting",
    "export": "storagering.exporting",
    "fill": "storagering.api",
    "inspect": "storagering.formats.inspect",
    "open_dataset": "storagering.cache.dataset",
    "pull": "storagering.api",
    **dict.fromkeys(("du", "evict", "gc", "pin", "remove", "unpin"), "storagering.housekeeping"),
    "sql": "storagering.catalog.query",
    "verify": "storagering.api",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import storagering`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'storagering' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
