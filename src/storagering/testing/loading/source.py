"""The workloads' own files: ROOT and HDF5, one process or class a file, and thinner ones for slow peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from storagering.testing.loading.case import (
    FLAT_FEATURES,
    JET_FEATURES,
    PARTICLE_FEATURES,
    TREE,
    Array,
    Block,
    Case,
    Jagged,
    cut,
)
from storagering.testing.loading.mixing import spans

#: Entries of a basket of the ROOT files.
STEP = {"w1": 50_000, "w2": 5_000}
FILES = {"w1": 4, "w2": 10, "w3": 2}


def source_files(case: Case) -> list[Path]:
    """The files, one process or class each; with a limit, files of that many entries in all."""
    if case.limit == 0:
        return sorted((case.folder / "source").iterdir())
    return sorted(case.made("source", lambda folder: write_sources(case.data, case.arrays(), folder)).iterdir())


def write_sources(data: str, block: Block, folder: Path) -> None:
    """Write equal parts of the entries as ROOT (zstd) or, for images, HDF5 (gzip)."""
    folder.mkdir(parents=True)
    count = len(block[-1])
    for number in range(FILES[data]):
        part = cut(block, count * number // FILES[data], count * (number + 1) // FILES[data])
        if data == "w3":
            _write_images(folder / f"{number}.h5", part)
        else:
            _write_tree(folder / f"{number}.root", part, STEP[data])


def _write_tree(path: Path, block: Block, step: int) -> None:
    import uproot

    first = _branches(cut(block, 0, 1))
    with uproot.recreate(path, compression=uproot.ZSTD(5)) as file:
        tree = file.mktree(TREE, {n: getattr(a, "dtype", None) or a.type.content for n, a in first.items()})
        for start, stop in spans(len(block[-1]), step):
            tree.extend(_branches(cut(block, start, stop)))


def _branches(block: Block) -> dict[str, Any]:
    first, *flat, label = block
    if not isinstance(first, Jagged):
        return _columns(first, FLAT_FEATURES) | {"label": label}
    import awkward as ak

    names = [name.removeprefix("part_") for name in PARTICLE_FEATURES]
    items = ak.zip(dict(zip(names, _columns(first.values, PARTICLE_FEATURES).values(), strict=True)))
    lists = ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(first.offsets), items.layout))
    return {"part": lists, **_columns(flat[0], JET_FEATURES), "label": label}


def _columns(values: Any, names: tuple[str, ...]) -> dict[str, Array]:
    return {name: np.ascontiguousarray(values[:, k]) for k, name in enumerate(names)}


def _write_images(path: Path, block: Block) -> None:
    import h5py

    images, energy, label = block
    with h5py.File(path, "w") as file:
        chunks = (min(16, len(label)), 25, 25, 25)
        file.create_dataset("images", data=images, chunks=chunks, compression="gzip", compression_opts=4)
        file.create_dataset("energy", data=energy)
        file.create_dataset("label", data=label)
