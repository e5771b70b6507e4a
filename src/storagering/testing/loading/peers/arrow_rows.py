"""Hugging Face datasets and Lance: random rows out of Arrow tables on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from storagering.testing.loading.case import Array, Batch, Block, Case, Epoch, Jagged, Variant
from storagering.testing.loading.mixing import random_rows, to_tensors

_NAMES = {"w1": ("first", "label"), "w2": ("first", "jet", "label"), "w3": ("first", "energy", "label")}
_ROWS_PER_FILE = {"w1": 500_000, "w2": 20_000, "w3": 2_500}


def table(case: Case) -> Any:
    """An Arrow table of all entries."""

    def column(part: Array | Jagged) -> Any:
        if isinstance(part, Jagged):
            offsets = pa.array((part.offsets * part.values.shape[1]).astype(np.int32))
            return pa.ListArray.from_arrays(offsets, pa.array(np.asarray(part.values).ravel()))
        values = pa.array(np.asarray(part).ravel())
        return values if part.ndim == 1 else pa.FixedSizeListArray.from_arrays(values, part[0].size)

    return pa.table(dict(zip(_NAMES[case.data], map(column, case.arrays()), strict=True)))


def decode(case: Case, rows: Any) -> Block:
    """The columns of a record batch or table, as arrays."""

    def part(name: str) -> Array | Jagged:
        column = rows.column(name)
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if name == "first" and case.data == "w2":
            offsets = column.offsets.to_numpy().astype(np.int64)
            values = column.values.to_numpy()[offsets[0] : offsets[-1]].reshape(-1, 8)
            return Jagged(values, (offsets - offsets[0]) // 8)
        if pa.types.is_primitive(column.type):
            return np.array(column)
        shape = (25, 25, 25) if case.data == "w3" else (-1,)
        return np.array(column.flatten().to_numpy().reshape(len(column), *shape))

    return tuple(part(name) for name in _NAMES[case.data])


def hf_files(case: Case) -> list[Path]:
    """What ``save_to_disk`` writes."""

    def write(path: Path) -> None:
        import datasets

        datasets.Dataset(datasets.table.InMemoryTable(table(case))).save_to_disk(str(path))

    return [case.made("hf", write)]


def open_hf(case: Case) -> Epoch:
    """``dataset[rows]`` in Arrow format, which is its fastest."""
    import datasets

    dataset = datasets.load_from_disk(str(hf_files(case)[0])).with_format("arrow")
    return random_rows(case, len(dataset), lambda rows: to_tensors(case, decode(case, dataset[rows])))


def lance_files(case: Case) -> list[Path]:
    """A Lance dataset of several files."""

    def write(path: Path) -> None:
        import lance

        lance.write_dataset(table(case), str(path), max_rows_per_file=_ROWS_PER_FILE[case.data])

    return [case.made("lance", write)]


def open_take(case: Case) -> Epoch:
    """``take`` of random rows."""
    import lance

    dataset = lance.dataset(str(lance_files(case)[0]))
    return random_rows(
        case, dataset.count_rows(), lambda rows: to_tensors(case, decode(case, dataset.take(rows.tolist())))
    )


def open_batches(case: Case) -> Epoch:
    """Its own dataset for torch: rows that follow one another are a batch, and batches come in random order."""
    from lance.sampler import ShardedBatchSampler
    from lance.torch.data import LanceDataset

    path = str(lance_files(case)[0])

    def epoch(number: int) -> Iterator[Batch]:
        return iter(
            LanceDataset(
                path,
                batch_size=case.batch_size,
                to_tensor_fn=lambda rows, **_: to_tensors(case, decode(case, rows)),
                batch_readahead=4,
                sampler=ShardedBatchSampler(0, 1, randomize=True, seed=number),
            )
        )

    return epoch


VARIANTS = {
    "hf": Variant(hf_files, open_hf),
    "take": Variant(lance_files, open_take),
    "batches": Variant(lance_files, open_batches),
}
