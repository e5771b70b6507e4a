"""A batch as plain bytes, for files that only we read back: its arrays one after the other."""

from __future__ import annotations

import numpy as np

from storagering.errors import CorruptDataError
from storagering.types import Array, Batch, Schema

#: Marks a length as the number of an earlier array, which is this one, too.
_SAME = 1 << 63
#: Arrays begin on multiples of this, if the bytes do.
ALIGNMENT = 8


def pack_batch(batch: Batch) -> list[bytes | memoryview]:
    """The batch as bytes, to be read with the schema at hand; in pieces, which are its own arrays."""
    lengths, known = [batch.num_entries], dict[int, int]()
    pieces: list[bytes | memoryview] = [b""]
    for column in batch.schema.columns:
        for array in batch.arrays[column.name]:
            if id(array) in known:
                lengths.append(_SAME | known[id(array)])
                continue
            known[id(array)] = len(lengths)
            lengths.append(len(array))
            pieces.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            if padding := -array.nbytes % ALIGNMENT:
                pieces.append(bytes(padding))
    pieces[0] = np.array(lengths, "<u8").tobytes()
    return pieces


def unpack_batch(schema: Schema, data: bytes | memoryview) -> Batch:
    """The batch of that schema; its arrays are views, which cannot be written.

    Raises:
        CorruptDataError: the bytes are not such a batch.
    """
    parts = [part for column in schema.columns for part in column.parts]
    try:
        lengths = np.frombuffer(data, "<u8", 1 + len(parts)).tolist()
        found: list[Array] = [np.zeros(0)]
        at = 8 * len(lengths)
        for part, length in zip(parts, lengths[1:], strict=True):
            if length & _SAME:
                found.append(found[length ^ _SAME])
                continue
            count = length * int(np.prod(part.shape))
            array = np.frombuffer(data, part.dtype, count, at)
            found.append(array.reshape(length, *part.shape))
            at += array.nbytes + -array.nbytes % ALIGNMENT
    except (ValueError, IndexError) as error:
        raise CorruptDataError(f"{len(data):,} bytes do not hold a batch of {len(schema.columns)} columns") from error
    arrays, rest = {}, iter(found[1:])
    for column in schema.columns:
        arrays[column.name] = tuple(next(rest) for _ in column.parts)
    return Batch(schema, lengths[0], arrays)
