"""What every reader offers: one table of columns, read by ranges of entries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from storagering.errors import StorageringError
from storagering.files import redact_url


@dataclass(frozen=True, slots=True)
class Location:
    """Where the bytes of a source are. Keeps secrets, so it is never stored.

    Attributes:
        url: path or URL.
        replicas: further URLs of the same bytes, tried in order when reading fails.
        checksum: what the user vouches for, e.g. ``adler32:0a1b2c3d`` or ``sha256:...``; '' if nothing.
    """

    url: str
    replicas: tuple[str, ...] = ()
    checksum: str = ""

    @property
    def shown(self) -> str:
        """The URL without secrets."""
        return redact_url(self.url)


class UnreadableColumnsError(StorageringError):
    """Some columns cannot be read as arrays, though the file is sound.

    Attributes:
        reasons: name -> why, in one line.
    """

    exit_code = 3

    def __init__(self, reasons: dict[str, str], url: str) -> None:
        listed = "; ".join(f"{name!r}: {why}" for name, why in list(reasons.items())[:5])
        super().__init__(f"{redact_url(url)}: {len(reasons)} column(s) cannot be read: {listed}")
        self.reasons = reasons


class Source(ABC):
    """One table of one file: a tree, a dataset of an HDF5 file, a whole Parquet file.

    Attributes:
        format: ``ttree``, ``rntuple``, ``parquet``, ...
        url: where it is; may hold secrets.
        tree: name of the table in the file, '' where a file is one table.
        entries: number of entries.
        nbytes: size of the file.
        version: token of the file's state (etag or modification time), '' if unknown.
        columns: column name -> the type's name in the source, in order.
        repeated: names that further columns have too, which cannot be told apart from the first.
        checksum: whole-file checksum that was found right (``adler32:0a1b2c3d``), '' if none was compared.
        self_checked: whether all bytes that `read` uses carry checksums which it compares.
    """

    format: str
    url: str
    tree: str
    entries: int
    nbytes: int
    version: str
    columns: dict[str, str]
    repeated: list[str]
    checksum: str = ""
    self_checked: bool = False

    def doc(self, name: str) -> str:  # noqa: ARG002  (most formats have none)
        """The column's title, '' if it says nothing."""
        return ""

    @abstractmethod
    def boundaries(self, names: Iterable[str]) -> list[int]:
        """Entry numbers, from 0 to ``entries``, between which no compressed block is cut."""

    @abstractmethod
    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        """Entries ``start`` to ``stop`` of the named columns as Awkward arrays.

        Raises:
            UnreadableColumnsError: naming all columns that have no arrays.
            CorruptDataError: the file is damaged there, naming the column.
            SourceError: the server failed.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the file back."""
