"""The one contract of chunk stores: a batch becomes the bytes of one file, and comes back checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import xxhash
from blake3 import blake3

from storagering.errors import ChecksumError, CorruptDataError
from storagering.types import Array, Batch, Chunk, Column, Layout, Profile, Schema, StoreFormat, check_places

if TYPE_CHECKING:
    from storagering.cache.packed import PackedRows


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """The bytes of a chunk file, in pieces so that raw arrays need no copy; the last two are those of `Chunk`."""

    pieces: tuple[bytes | memoryview, ...]
    trusted_from: int
    checksum: str

    @property
    def data(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces)

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return sum(map(len, self.pieces))


class ChunkReader(Protocol):
    """One chunk file, open; every byte that it returns was checked. Safe to use from several threads."""

    def read_column(self, name: str, out: Array | None = None, places: Array | None = None) -> tuple[Array, ...]:
        """The parts of one column; those of a sparse one fit together and into the arrays that they stand for.

        Args:
            out: contiguous array to decode the last part into, if it has that part's dtype and shape.
            places: the same for the places of a sparse column.

        Raises:
            ChecksumError: the bytes changed on disk, naming chunk and column.
            CorruptDataError: they do not hold what the schema says.
        """

    def view_column(self, name: str) -> Array | None:
        """The last part of a column where it lies in the file as it is in memory, checked, to be read at once; or None.

        Never of a sparse column, whose parts are checked together.

        Raises:
            ChecksumError: as `read_column`.
        """

    def read_offsets(self, name: str) -> Array:
        """The offsets of a jagged or sparse column alone (int64, one more than entries); raises as `read_column`."""

    def stored_bytes(self, names: Iterable[str]) -> int:
        """About how many bytes of the file are read for these columns."""

    def packed_rows(self) -> PackedRows | None:
        """The rows in which the flat columns are packed, None in other layouts."""


class ChunkStore(Protocol):
    """A file format for chunks."""

    suffix: str

    def encode(self, batch: Batch, profile: Profile) -> EncodedChunk:
        """The file that holds the batch; the same batch gives the same bytes."""

    def open(self, path: Path, chunk: Chunk, schema: Schema) -> ChunkReader:
        """Open a chunk file and check what its manifest vouches for.

        Raises:
            TruncatedError: the file is missing or of another size.
            ChecksumError: its index or metadata changed on disk.
        """


def chunk_store(store_format: StoreFormat, layout: Layout = "columns") -> ChunkStore:
    """The store of that name; the layout is that of what it will write."""
    if store_format == "parquet":
        from storagering.cache.parquet_store import ParquetStore

        return ParquetStore()
    from storagering.cache.zarr_store import ZarrStore

    return ZarrStore(layout)


def read_batch(reader: ChunkReader, schema: Schema, num_entries: int) -> Batch:
    """All columns of ``schema`` from an open chunk, checked against it."""
    return Batch(schema, num_entries, {c.name: reader.read_column(c.name) for c in schema.columns}).check()


def check_sparse(path: Path, column: Column, arrays: tuple[Array, ...]) -> None:
    """`check_places` for what comes from a chunk: whoever scatters the values relies on it.

    Raises:
        CorruptDataError: naming file and column.
    """
    try:
        check_places(column, arrays)
    except CorruptDataError as error:
        raise CorruptDataError(f"{path}: {error}; convert it again") from error


def checksum_of(data: bytes | memoryview) -> str:
    """XXH3-64 as hex digits."""
    return xxhash.xxh3_64_hexdigest(data)


def digest_of(*pieces: bytes | memoryview) -> str:
    """BLAKE3 of a chunk file, as hex digits: as strong as sha256 and three times as fast on one core."""
    digest = blake3()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def damaged(path: Path, where: str, why: str = "its bytes changed on disk") -> ChecksumError:
    """The error for bytes that differ from their checksum."""
    return ChecksumError(
        f"{path.name} of dataset {path.parent.name!r}: {where} is damaged ({why}); "
        f"'storagering verify {path.parent.name} --repair' makes it again from the sources"
    )
