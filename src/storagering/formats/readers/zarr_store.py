"""A store for the zarr library that knows only what is there: a chunk that is absent is an error.

Zarr takes an absent chunk for one full of the fill value, as writers leave such chunks out. Nobody can
tell it from a chunk that was lost, so it counts only on demand (`Settings.fill_absent_chunks`). Chunks
left out of a shard are another matter: the shard's index, which carries a checksum, says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from storagering.errors import CorruptDataError, InternalError
from storagering.formats.readers.zarr_keys import METADATA, Keys


class StrictStore(Store):  # type: ignore[misc]
    """Read-only.

    Args:
        known: metadata that were read already, by key.
        fill: whether absent chunks count as full of the fill value.
    """

    supports_writes = supports_deletes = supports_listing = False

    def __init__(self, keys: Keys, known: Mapping[str, bytes], *, fill: bool) -> None:
        super().__init__(read_only=True)
        self._keys, self._known, self._fill = keys, known, fill

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of a file; None for metadata that there are not."""
        if key in self._known:
            return prototype.buffer.from_bytes(self._known[key])
        if key.rpartition("/")[2] in METADATA:
            return None  # all that there are have been read
        data = await asyncio.to_thread(self._keys.read, key, *_slice(byte_range))
        if data is None:
            if self._fill:
                return None
            raise CorruptDataError(
                f"the chunk {key!r} is absent: lost, or left out by the writer because it holds nothing but the fill "
                "value; if you know that it was left out, set STORAGERING_FILL_ABSENT_CHUNKS=1"
            )
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        return key in self._known

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002
        raise InternalError(f"a source is never written ({key})")

    async def delete(self, key: str) -> None:
        raise InternalError(f"a source is never written ({key})")

    async def list(self) -> AsyncIterator[str]:
        for key in self._known:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in self._known:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        below = f"{prefix}/" if prefix else ""
        for name in {k.removeprefix(below).split("/")[0] for k in self._known if k.startswith(below)}:
            yield name


def _slice(wanted: Any) -> tuple[int | None, int | None]:
    if isinstance(wanted, RangeByteRequest):
        return wanted.start, wanted.end
    if isinstance(wanted, OffsetByteRequest):
        return wanted.offset, None
    return (-wanted.suffix, None) if isinstance(wanted, SuffixByteRequest) else (None, None)
