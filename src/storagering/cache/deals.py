"""What the first pass of a mixed build writes: entries dealt into piles by the leading bits of their keys.

    [entries of pile 0, packed] [of pile 1] ... [index: one row per pile] [checksum of the index]

Within a pile the entries of one file are in the order of the sources. Their ids count the sources of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numcodecs.lz4
import numpy as np
import xxhash

from storagering.cache.chunks import BuiltChunk
from storagering.cache.entry_keys import ENTRY_BITS, ENTRY_ID, mixing_keys, source_keys
from storagering.cache.messages import BuildContext, Deal
from storagering.cache.store import digest_of
from storagering.errors import ChecksumError, CorruptDataError
from storagering.files import read_range, safe_join, write_new
from storagering.formats.batches import cut_batch, join_batches, raw_size_of, size_of, take_batch
from storagering.formats.packed import ALIGNMENT, pack_batch, unpack_batch
from storagering.types import Array, Batch, Chunk, Schema, Span

#: Chunks' worth of entries that are dealt at a time, and that a pile has at most: more of them make fewer and longer
#: reads, and take more memory.
DEAL_CHUNKS = 4
_SUFFIX = ".deal"
#: What lz4 must leave at most of a pile, to be worth while; it is tried on the beginning of each array first.
_WORTH = 3 / 4
_SLICE_BYTES = 1 << 10
_INDEX_ROW = np.dtype([("stop", "<u8"), ("entries", "<u8"), ("nbytes", "<u8"), ("checksum", "<u8")])
_CHECKSUM_BYTES = 8


def piles_of(keys: Array, bits: int) -> Array:
    """Numbers (uint16) of the piles that entries with those keys go to, of 2^bits."""
    return ((keys >> np.uint64(63 - bits)) >> np.uint64(1)).astype(np.uint16)


class DealWriter:
    """Gathers selected pieces and deals them; used as a `ChunkWriter`."""

    def __init__(self, context: BuildContext, bits: int, prefix: str) -> None:
        self._context, self._bits, self._prefix = context, bits, prefix
        self._limit = DEAL_CHUNKS * context.spec.chunk_bytes
        self._waiting: list[Batch] = []
        self._bytes = 0
        self._spans: list[Span] = []
        self._numbers: dict[int, int] = {}
        self.built: list[BuiltChunk] = []

    def finish(self) -> tuple[BuiltChunk, ...]:
        """Write what is left; all files."""
        self.flush()
        return tuple(self.built)

    def add(self, batch: Batch, span: Span) -> None:
        """Take the selected entries of a piece, whose ids do not tell the source yet."""
        size = size_of(batch)
        if self._bytes + size > self._limit:
            self.flush()
        number = self._numbers.setdefault(span.source, len(self._numbers))
        self._spans.append(span)
        if batch.num_entries:
            ids = batch.arrays[ENTRY_ID][0] | np.uint64(number << ENTRY_BITS)
            self._waiting.append(Batch(batch.schema, batch.num_entries, {**batch.arrays, ENTRY_ID: (ids,)}))
        self._bytes += size

    def flush(self) -> None:
        """Write what has gathered; pieces without survivors leave nothing."""
        waiting, spans, numbers = self._waiting, tuple(self._spans), self._numbers
        self._waiting, self._spans, self._numbers, self._bytes = [], [], {}, 0
        if not waiting:
            return
        context = self._context
        batch = join_batches(context.schema, waiting)
        del waiting
        raw_bytes = raw_size_of(batch)
        of_sources = source_keys(_seed_of(context), [context.sources[number].url for number in numbers])
        piles = piles_of(mixing_keys(batch.arrays[ENTRY_ID][0], of_sources), self._bits)
        batch = take_batch(batch, np.argsort(piles, kind="stable"))
        pieces = _deal(batch, np.bincount(piles, minlength=1 << self._bits))
        file = f"{self._prefix}-{len(self.built):04d}{_SUFFIX}"
        write_new(Path(context.staging) / file, *pieces, durable=False)
        chunk = Chunk(0, batch.num_entries, file, _size(pieces), raw_bytes, digest_of(*pieces), 0, "", spans)
        self.built.append(BuiltChunk(chunk, ()))


def _seed_of(context: BuildContext) -> int:
    assert context.spec.mix is not None  # noqa: S101  (nothing is dealt otherwise)
    return context.spec.mix


def _deal(batch: Batch, counts: Array) -> list[bytes | memoryview]:
    """The file, in pieces, of entries that lie pile by pile, so many in each."""
    index = np.zeros(len(counts), _INDEX_ROW)
    pieces: list[bytes | memoryview] = []
    start = at = 0
    for pile, count in enumerate(counts.tolist()):
        if count:
            packed = pack_batch(cut_batch(batch, start, start + count))
            stored = _squeeze(packed)
            pieces += stored
            start, at = start + count, at + _size(stored)
            index[pile] = at, count, _size(packed), _checksum(stored, pile)
        else:
            index[pile]["stop"] = at
    rows = index.tobytes()
    return [*pieces, rows, xxhash.xxh3_64_intdigest(rows).to_bytes(_CHECKSUM_BYTES, "little")]


def _squeeze(packed: Sequence[bytes | memoryview]) -> Sequence[bytes | memoryview]:
    """The bytes compressed, or themselves if that is not worth while."""
    some = b"".join(piece[:_SLICE_BYTES] for piece in packed)
    if len(numcodecs.lz4.compress(some, 1)) > _WORTH * len(some):
        return packed
    squeezed = bytes(numcodecs.lz4.compress(b"".join(packed), 1))
    return [squeezed] if len(squeezed) <= _WORTH * _size(packed) else packed


def _size(pieces: Sequence[bytes | memoryview]) -> int:
    return sum(map(len, pieces))


def _checksum(stored: Sequence[bytes | memoryview], pile: int) -> int:
    checksum = xxhash.xxh3_64(seed=pile)
    for piece in stored:
        checksum.update(piece)
    return checksum.intdigest()


@dataclass(frozen=True)
class Tally:
    """What lies in each pile: numbers of entries, and decoded bytes."""

    entries: Array
    nbytes: Array


def tally_piles(staging: Path, deals: list[Deal], bits: int) -> Tally:
    """What all files have dealt together.

    Raises:
        CorruptDataError: a file is not what was written.
    """
    entries, nbytes = np.zeros(1 << bits, np.int64), np.zeros(1 << bits, np.int64)
    for deal in deals:
        rows = read_range(safe_join(staging, deal.file), *_index_range(deal, bits))
        if xxhash.xxh3_64_intdigest(rows[:-_CHECKSUM_BYTES]) != int.from_bytes(rows[-_CHECKSUM_BYTES:], "little"):
            raise _damaged(staging / deal.file)
        index = np.frombuffer(rows[:-_CHECKSUM_BYTES], _INDEX_ROW)
        entries += index["entries"].astype(np.int64)
        nbytes += index["nbytes"].astype(np.int64)
    return Tally(entries, nbytes)


def _index_range(deal: Deal, bits: int) -> tuple[int, int]:
    size = _INDEX_ROW.itemsize * (1 << bits) + _CHECKSUM_BYTES
    return deal.nbytes - size, size


def read_piles(staging: Path, deal: Deal, bits: int, first: int, last: int, schema: Schema) -> Iterator[Batch]:
    """What one file has dealt to the piles ``first`` to ``last``, pile by pile.

    Raises:
        CorruptDataError: the file is not what was written.
    """
    path = safe_join(staging, deal.file)
    before = max(0, first - 1)
    begin = _index_range(deal, bits)[0] + before * _INDEX_ROW.itemsize
    index = np.frombuffer(read_range(path, begin, (last + 1 - before) * _INDEX_ROW.itemsize), _INDEX_ROW)
    rows = index[first - before :].tolist()
    begin = at = int(index[0]["stop"]) if first else 0
    if not begin <= rows[-1][0] <= deal.nbytes:
        raise _damaged(path)
    data = memoryview(read_range(path, begin, rows[-1][0] - begin))
    for pile, (stop, entries, nbytes, checksum) in enumerate(rows, first):
        aligned = (at - begin) % ALIGNMENT == 0
        stored, at = data[at - begin : stop - begin], stop
        if not entries:
            continue
        if _checksum([stored], pile) != checksum:
            raise _damaged(path)
        packed: bytes | memoryview = stored if aligned else bytes(stored)
        try:
            if len(stored) != nbytes:
                packed = bytes(numcodecs.lz4.decompress(stored))
            batch = unpack_batch(schema, packed)
        except (CorruptDataError, RuntimeError) as error:
            raise _damaged(path) from error
        yield batch


def _damaged(path: Path) -> ChecksumError:
    return ChecksumError(f"{path} was damaged on the disk; run the same command again, which makes it anew")
