"""What every reader offers: one table of columns, read by ranges of entries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storagering.errors import NotFoundError, StorageringError
from storagering.formats.forms import to_batch
from storagering.types import Batch, Schema
from storagering.urls import redact_url


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was found on a server.

    Attributes:
        url: where it was found, which may be a replica.
        version: token of its state there (etag or modification time), '' if unknown.
        checksum: what that server says its checksum is, '' if it was not asked or does not say.
    """

    url: str
    size: int
    version: str
    checksum: str = ""


@dataclass(frozen=True, slots=True)
class Location:
    """Where the bytes of a source are. Keeps secrets, so it is never stored.

    Attributes:
        url: path or URL.
        replicas: further URLs of the same bytes, tried in order when reading fails.
        checksum: what the user vouches for, e.g. ``adler32:0a1b2c3d`` or ``sha256:...``; '' if nothing.
        friends: (URL, table) of further tables with the same entries; '' for the same file.
        whole: whether to fetch the whole file into the spool, which compares ``checksum``, before it is read.
        state: the file as it was found once; another is refused from then on. None if nobody looked yet.
    """

    url: str
    replicas: tuple[str, ...] = ()
    checksum: str = ""
    friends: tuple[tuple[str, str | None], ...] = ()
    whole: bool = False
    state: FileState | None = None

    @property
    def shown(self) -> str:
        """The URL without secrets."""
        return redact_url(self.url)


class UnreadableColumnsError(StorageringError):
    """Some columns cannot be read as arrays, though the file is sound.

    Attributes:
        reasons: name -> why, in one line.
        arrays: further columns that were read before it was known; not all that can be.
    """

    exit_code = 3

    def __init__(self, reasons: dict[str, str], url: str, arrays: Mapping[str, Any] | None = None) -> None:
        listed = "; ".join(f"{name!r}: {why}" for name, why in list(reasons.items())[:5])
        super().__init__(f"{redact_url(url)}: {len(reasons)} column(s) cannot be read: {listed}")
        self.reasons = reasons
        self.arrays = dict(arrays or {})


class SeveralTablesError(NotFoundError):
    """A file holds several tables and none was named.

    Attributes:
        tables: their names.
    """

    def __init__(self, tables: Sequence[str], url: str, kind: str = "tables") -> None:
        listed = ", ".join(tables[:40]) + (", ..." if len(tables) > 40 else "")
        super().__init__(f"{redact_url(url)} holds {len(tables)} {kind}: {listed}; choose one with --tree NAME")
        self.tables = tuple(tables)


@dataclass(frozen=True, slots=True)
class Storage:
    """How a column lies in its file, as far as the file's metadata say.

    Attributes:
        compression: algorithm and level, e.g. ``zstd 5``; '' if none or unknown.
        blocks: compressed blocks: ROOT's baskets or pages, row groups, chunks; None if unknown.
        stored_bytes: size in the file, None if unknown.
        decoded_bytes: size unpacked, None if unknown.
    """

    compression: str = ""
    blocks: int | None = None
    stored_bytes: int | None = None
    decoded_bytes: int | None = None


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
        title: what the table says of itself, '' if nothing.
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
    title: str = ""

    def doc(self, name: str) -> str:  # noqa: ARG002  (most formats have none)
        """The column's title, '' if it says nothing."""
        return ""

    def storage(self) -> dict[str, Storage]:
        """How the columns are stored, found without reading their data; `inspect` shows it. Columns may be absent."""
        return {}

    def nbytes_of(self, names: Iterable[str]) -> int:  # noqa: ARG002
        """Bytes of the file that the named columns take, as far as the format tells; else all of them."""
        return self.nbytes

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

    def read_batch(self, schema: Schema, start: int, stop: int) -> Batch:
        """Entries ``start`` to ``stop`` of the schema's columns; readers that can do it without Awkward Array do.

        Raises:
            SchemaError: a column is of another type here.
            UnreadableColumnsError, CorruptDataError, SourceError: as `read`.
        """
        return to_batch(schema, self.read(schema.names, start, stop), stop - start)

    @abstractmethod
    def close(self) -> None:
        """Give the file back."""
