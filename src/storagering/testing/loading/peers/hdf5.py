"""h5py: blocks of a compressed file into a shuffle buffer, or random rows of an uncompressed one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch

from storagering.testing.loading.case import Array, Batch, Block, Case, Epoch, Jagged, Variant
from storagering.testing.loading.mixing import buffered, random_rows, read_later, spans

_CHUNK = {"w1": 16_384, "w2": 2_048, "w3": 16}
_ITEMS = 65_536


def _files(compressed: bool) -> Callable[[Case], list[Path]]:
    def files(case: Case) -> list[Path]:
        def write(path: Path) -> None:
            first, *flat = case.arrays()
            parts = {"first": first.values, "offsets": first.offsets} if isinstance(first, Jagged) else {"first": first}
            parts |= {f"flat{k}": part for k, part in enumerate(flat)}  # type: ignore[misc]
            with h5py.File(path, "w") as file:
                for name, array in parts.items():
                    rows = _ITEMS if name == "first" and case.data == "w2" else _CHUNK[case.data]
                    chunks = (min(rows, len(array)), *array.shape[1:])
                    packed = {"chunks": chunks, "compression": "gzip", "compression_opts": 4, "shuffle": True}
                    file.create_dataset(name, data=array, **(packed if compressed else {}))

        return [case.made("gzip.h5" if compressed else "raw.h5", write)]

    return files


def open_blocks(case: Case) -> Epoch:
    """As many rows as a chunk has, in random order; all but the features are held in memory."""
    file = h5py.File(_files(True)(case)[0])
    first, small = file["first"], {name: file[name][:] for name in file if name != "first"}
    flat = [small[name] for name in sorted(small) if name != "offsets"]

    def read(span: tuple[int, int]) -> Block:
        start, stop = span
        parts = [array[start:stop] for array in flat]
        if case.data != "w2":
            return first[start:stop], *parts
        offsets = small["offsets"][start : stop + 1]
        return Jagged(first[offsets[0] : offsets[-1]], offsets - offsets[0]), *parts

    return buffered(case, spans(len(flat[-1]), _CHUNK[case.data]), _CHUNK[case.data], read_later(read))


def open_rows(case: Case) -> Epoch:
    """Random rows of the file, sorted within a batch as h5py wants them."""
    file = h5py.File(_files(False)(case)[0])
    flat = [file[name][:] for name in sorted(file) if name != "first"]

    def get(rows: Array) -> Batch:
        rows = np.sort(rows)
        return tuple(torch.from_numpy(part) for part in (file["first"][rows], *(array[rows] for array in flat)))

    return random_rows(case, len(flat[-1]), get)


VARIANTS = {"blocks": Variant(_files(True), open_blocks), "rows": Variant(_files(False), open_rows)}
