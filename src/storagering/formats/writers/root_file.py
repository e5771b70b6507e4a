"""What the two writers of ROOT files share: compression and names."""

from __future__ import annotations

from typing import Any

import uproot

from storagering.errors import SpecError
from storagering.formats.writers.writer import is_plain_name

COMPRESSIONS = {"zstd": 5, "lz4": 4, "zlib": 1, "lzma": 1, "none": None}


def compression_of(codec: str, level: int | None) -> Any:
    """The compression of that name as uproot has it, None for ``none``."""
    return None if codec == "none" else getattr(uproot, codec.upper())(level)


def tree_name(name: str) -> str:
    """The name, if a tree may have it (``folder/name`` makes a folder).

    Raises:
        SpecError: it may not.
    """
    if not all(is_plain_name(part, ";:") for part in name.split("/")):
        raise SpecError(f"--tree {name!r} cannot be the name of a tree")
    return name
