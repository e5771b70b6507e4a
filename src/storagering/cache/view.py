"""Views: the entries of a dataset for which a selection is true, found when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

from storagering.cache.access import ChunkAccess
from storagering.cache.dataset import Dataset
from storagering.cache.store import read_batch
from storagering.cache.zones import judge_chunks, parse_selection
from storagering.formats.expressions import Expression, evaluate_mask, parse_expression
from storagering.formats.forms import empty_array, to_awkward, to_batch
from storagering.types import Array, Batch, Chunk, Schema


class View:
    """Those entries of a dataset for which a selection is true; see `Dataset.where`. It never changes.

    It holds no open files, so it may be sent to other processes.

    Args:
        selections: that are all true, of which the last one is new.

    Attributes:
        dataset: whose entries these are, in the version that it was when the view was made.
        selection: the expression.

    Raises:
        SpecError: the last selection is not one of the dataset's columns.
    """

    def __init__(self, dataset: Dataset, *selections: str) -> None:
        self.dataset = dataset
        self._selections = selections
        self.selection = selections[0] if len(selections) == 1 else " & ".join(f"({one})" for one in selections)
        parse_selection(selections[-1], dataset.schema)
        self._verdicts: list[bool | None] | None = None
        self._bits: list[Array | None] | None = None

    @property
    def schema(self) -> Schema:
        """The columns of the dataset."""
        return self.dataset.schema

    def where(self, expression: str) -> View:
        """Those of the entries for which another selection is true, too.

        Raises:
            SpecError: it is not one of the dataset's columns.
        """
        return View(self.dataset, *self._selections, expression)

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """The chunks that can hold one of the entries, as far as statistics and bitmap indexes tell; none is opened.

        Raises:
            ChecksumError: the table of statistics is damaged.
        """
        chunks = self.dataset.manifest.chunks
        return tuple(chunk for chunk, verdict in zip(chunks, self._judge(), strict=True) if verdict is not False)

    def __len__(self) -> int:
        """Number of entries. The columns of the selection are read where nothing else tells, once."""
        rows = zip(self.dataset.manifest.chunks, self._look(), strict=True)
        return sum(c.num_entries if bits is None else int(np.unpackbits(bits).sum()) for c, bits in rows)

    def entries(self) -> Array:
        """Numbers (int64) of the entries in the dataset, rising.

        Raises:
            CorruptDataError: a chunk is damaged.
        """
        return np.concatenate([np.zeros(0, np.int64), *(chunk.start + rows for chunk, rows in self._rows())])

    def batches(self, columns: Iterable[str] | None = None) -> Iterator[Any]:
        """The entries chunk by chunk, as Awkward record arrays; chunks without any are not opened, and give nothing.

        Raises:
            SchemaError: no such column (lists the nearest names).
            CorruptDataError: a chunk is damaged.
        """
        schema = self.schema.select(columns)
        rows = list(self._rows())
        with self.dataset.access() as access:
            for chunk, own in rows:
                if len(own):
                    array = to_awkward(read_batch(access.open(chunk), schema, chunk.num_entries))
                    yield array if len(own) == chunk.num_entries else array[own]

    def arrays(self, columns: Iterable[str] | None = None) -> Any:
        """The entries as one Awkward record array; raises as `batches` does."""
        import awkward as ak

        schema = self.schema.select(columns)
        pieces = list(self.batches(schema.names))
        if not pieces:
            return to_awkward(to_batch(schema, {c.name: empty_array(c) for c in schema.columns}, 0))
        return ak.to_packed(pieces[0]) if len(pieces) == 1 else ak.concatenate(pieces)

    def __repr__(self) -> str:
        return f"<View of {self.dataset.name!r} where {self.selection}>"

    @cached_property
    def _expression(self) -> Expression:
        return parse_expression(self.selection, self.schema.names)

    def _judge(self) -> list[bool | None]:
        if self._verdicts is None:
            self._verdicts = judge_chunks(self.dataset, self._expression)
        return self._verdicts

    def _rows(self) -> Iterator[tuple[Chunk, Array]]:
        """The rows of each chunk that are in the view."""
        for chunk, bits in zip(self.dataset.manifest.chunks, self._look(), strict=True):
            everything = np.arange(chunk.num_entries)
            yield chunk, everything if bits is None else np.flatnonzero(np.unpackbits(bits, count=chunk.num_entries))

    def _look(self) -> list[Array | None]:
        """Of each chunk one bit for each entry, None for all entries."""
        if self._bits is None:
            chunks, verdicts = self.dataset.manifest.chunks, self._judge()
            doubtful = [chunk for chunk, verdict in zip(chunks, verdicts, strict=True) if verdict is None]
            threads = ThreadPoolExecutor(self.dataset.cache.settings.threads, "storagering-view")
            with self.dataset.access() as access, threads:
                masks = iter(list(threads.map(lambda chunk: self._mask(access, chunk), doubtful)))
            self._bits = [
                next(masks) if verdict is None else None if verdict else np.zeros(-(-chunk.num_entries // 8), np.uint8)
                for chunk, verdict in zip(chunks, verdicts, strict=True)
            ]
        return self._bits

    def _mask(self, access: ChunkAccess, chunk: Chunk) -> Array:
        names = self._expression.names or self.schema.names[:1]
        batch: Batch = read_batch(access.open(chunk), self.schema.select(names), chunk.num_entries)
        array = to_awkward(batch)
        return np.packbits(evaluate_mask(self._expression, {name: array[name] for name in names}))
