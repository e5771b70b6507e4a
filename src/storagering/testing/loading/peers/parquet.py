"""pyarrow reads row groups of a Parquet file (zstd, a column a feature) into a shuffle buffer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storagering.testing.loading.case import (
    FLAT_FEATURES,
    IMAGE,
    JET_FEATURES,
    PARTICLE_FEATURES,
    Array,
    Block,
    Case,
    Epoch,
    Jagged,
    Variant,
)
from storagering.testing.loading.mixing import buffered, read_later

_ROWS = {"w1": 16_384, "w2": 2_048, "w3": 64}


def _columns(values: Any, names: tuple[str, ...]) -> dict[str, Array]:
    return {name: np.ascontiguousarray(values[:, k]) for k, name in enumerate(names)}


def _table(case: Case) -> Any:
    first, *flat, label = case.arrays()
    if isinstance(first, Jagged):
        offsets = pa.array(first.offsets.astype(np.int32))
        lists = _columns(first.values, PARTICLE_FEATURES)
        columns: dict[str, Any] = {n: pa.ListArray.from_arrays(offsets, pa.array(a)) for n, a in lists.items()}
        columns |= _columns(flat[0], JET_FEATURES)
    elif case.data == "w1":
        columns = dict(_columns(first, FLAT_FEATURES))
    else:
        images = pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(first).ravel()), int(np.prod(IMAGE)))
        columns = {"images": images, "energy": np.asarray(flat[0])}
    return pa.table(columns | {"label": np.asarray(label)})


def _decode(case: Case, table: Any) -> Block:
    def column(name: str) -> Any:
        return table.column(name).combine_chunks()

    label = table.column("label").to_numpy()
    if case.data == "w1":
        return np.stack([table.column(name).to_numpy() for name in FLAT_FEATURES], axis=1), label
    if case.data == "w3":
        return column("images").flatten().to_numpy().reshape(-1, *IMAGE), table.column("energy").to_numpy(), label
    offsets = column(PARTICLE_FEATURES[0]).offsets.to_numpy().astype(np.int64)
    values = [column(name).values.to_numpy()[offsets[0] : offsets[-1]] for name in PARTICLE_FEATURES]
    jet = np.stack([table.column(name).to_numpy() for name in JET_FEATURES], axis=1)
    return Jagged(np.stack(values, axis=1), offsets - offsets[0]), jet, label


def files(case: Case) -> list[Path]:
    """One file."""

    def write(path: Path) -> None:
        pq.write_table(
            _table(case), path, row_group_size=_ROWS[case.data], compression="zstd", use_dictionary=["label"]
        )

    return [case.made("zstd.parquet", write)]


def open_groups(case: Case) -> Epoch:
    """Row groups in random order; pyarrow decodes columns in threads."""
    pa.set_cpu_count(case.cores)
    file = pq.ParquetFile(files(case)[0])

    def read(group: int) -> Block:
        return _decode(case, file.read_row_group(group, use_threads=case.cores > 1))

    return buffered(case, range(file.num_row_groups), _ROWS[case.data], read_later(read))


VARIANTS = {"zstd": Variant(files, open_groups)}
