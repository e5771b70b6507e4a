"""One pass over a few columns of a dataset before an epoch begins, in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from storagering.cache.store import read_batch
from storagering.errors import CorruptDataError
from storagering.formats.forms import to_awkward
from storagering.loaders.supply import ChunkSupply
from storagering.loaders.threads import ThreadCrew
from storagering.types import Chunk

_Found = TypeVar("_Found")
Columns = Mapping[str, Any]
"""An Awkward array of each column."""
_CLOSE_SECONDS = 5.0


def scan(
    supply: ChunkSupply,
    names: Sequence[str],
    chunks: Iterable[Chunk],
    threads: int,
    visit: Callable[[Chunk, Columns], _Found],
) -> list[_Found]:
    """What ``visit`` makes of each chunk and its columns, in the order of the chunks.

    Raises:
        CorruptDataError: a chunk is damaged.
    """
    schema = supply.schema.select(names)

    def read(chunk: Chunk) -> Columns:
        batch = read_batch(supply.open(chunk), schema, chunk.num_entries)
        array = to_awkward(batch)
        return {name: array[name] for name in schema.names}

    def look(chunk: Chunk) -> _Found:
        try:
            return visit(chunk, read(chunk))
        except CorruptDataError:
            if not supply.mend([chunk]):
                raise
            return visit(chunk, read(chunk))

    crew = ThreadCrew(threads, "storagering-scan")
    try:
        return crew.map(look, chunks)
    finally:
        crew.close(_CLOSE_SECONDS)
