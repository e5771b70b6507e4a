"""Building bitmap indexes of columns with few distinct values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from storagering.cache.bitmaps import index_path, is_indexable, roaring, write_index
from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.layout import open_cache
from storagering.config import Settings, load_settings
from storagering.errors import SchemaError, SpecError
from storagering.files import remove_file
from storagering.formats.arrow import to_arrow
from storagering.types import Array, Batch, Column

#: Values beyond which an index is no help: the statistics of chunks serve such columns.
MOST_VALUES = 100_000


@dataclass(frozen=True)
class IndexedColumn:
    """An index that was built.

    Attributes:
        values: distinct ones.
        nbytes: size of the file.
    """

    dataset: str
    column: str
    values: int
    nbytes: int


def index_columns(
    dataset: Dataset | str,
    columns: Sequence[str],
    *,
    progress: Callable[[int], None] = lambda _entries: None,
    settings: Settings | None = None,
) -> list[IndexedColumn]:
    """Build bitmap indexes: selections by ``==`` and ``IN``, joined by and/or, then open only chunks with a match.

    Each column is flat (integers, truth values, floating-point numbers) or text. An index belongs to one version of a
    dataset; build it again when something was appended.

    Args:
        dataset: or its name.
        progress: called with the number of entries read so far, of ``len(columns) * len(dataset)``.

    Raises:
        NotFoundError: no such dataset.
        SchemaError: no such column, or one that is neither flat nor text.
        SpecError: a column has more than 100,000 distinct values.
        MissingExtraError: pyroaring is not installed.
        CorruptDataError: a chunk is damaged.
    """
    data = dataset if isinstance(dataset, Dataset) else open_dataset(dataset, cache=_cache(settings))
    wanted = data.schema.select(columns).columns
    for column in wanted:
        if not is_indexable(column):
            raise SchemaError(f"column {column.name!r} is {column.kind}: only flat columns and text are indexed")
    roaring()
    return [_build(data, column, number * len(data), progress) for number, column in enumerate(wanted)]


def drop_indexes(dataset: Dataset | str, columns: Sequence[str], *, settings: Settings | None = None) -> None:
    """Remove indexes; what is not there is fine.

    Raises:
        NotFoundError: no such dataset.
        SchemaError: no such column.
    """
    data = dataset if isinstance(dataset, Dataset) else open_dataset(dataset, cache=_cache(settings))
    for column in data.schema.select(columns).columns:
        remove_file(index_path(data.cache, data.manifest, column))


def _cache(settings: Settings | None) -> Any:
    return open_cache(settings or load_settings())


def _build(dataset: Dataset, column: Column, done: int, progress: Callable[[int], None]) -> IndexedColumn:
    bitmaps: dict[Any, Any] = {}
    start, bitmap_class = 0, roaring()
    for batch in dataset.batches([column.name]):
        for value, rows in _groups(column, batch):
            bitmap = bitmaps.get(value)
            if bitmap is None:
                bitmap = bitmaps[value] = bitmap_class()
                if len(bitmaps) > MOST_VALUES:
                    raise SpecError(
                        f"column {column.name!r} of {dataset.name!r} has more than {MOST_VALUES:,} distinct values: "
                        "cuts on it are served by the statistics of chunks; index columns with few values"
                    )
            bitmap.update(rows + np.uint64(start))
        start += len(batch)
        progress(done + start)
    nbytes = _write(dataset, column, bitmaps)
    return IndexedColumn(dataset.name, column.name, len(bitmaps), nbytes)


def _write(dataset: Dataset, column: Column, bitmaps: dict[Any, Any]) -> int:
    path = index_path(dataset.cache, dataset.manifest, column)
    for bitmap in bitmaps.values():
        bitmap.run_optimize()
    if column.kind == "string":
        texts = sorted(bitmaps)
        return write_index(path, dataset.manifest, column, texts, [bitmaps[text] for text in texts])
    keys = sorted(key for key in bitmaps if key is not None)
    own = [*keys, *([None] if None in bitmaps else [])]
    values = np.array([np.nan if key is None else key for key in own], column.dtype)
    return write_index(path, dataset.manifest, column, values, [bitmaps[key] for key in own])


def _groups(column: Column, batch: Batch) -> Iterator[tuple[Any, Array]]:
    """Each value of a column in a batch (None for NaN), with the rows (uint64) that hold it."""
    if not len(batch):
        return
    arrays = batch.arrays[column.name]
    if column.kind == "string":
        encoded = to_arrow(column, arrays, len(batch)).dictionary_encode()
        values: Iterable[Any] = encoded.dictionary.to_pylist()
        codes = np.asarray(encoded.indices)
    else:
        found, codes = np.unique(arrays[0], return_inverse=True)
        values = [None if value != value else value for value in found.tolist()]
    order = np.argsort(codes, kind="stable").astype(np.uint64)
    ends = np.cumsum(np.bincount(codes, minlength=0))
    yield from zip(values, np.split(order, ends[:-1]), strict=True)
