"""uproot reads entry ranges of the ROOT files into a shuffle buffer."""

from __future__ import annotations

from typing import Any

import numpy as np
import uproot

from storagering.testing.loading.case import (
    FLAT_FEATURES,
    JET_FEATURES,
    PARTICLE_FEATURES,
    TREE,
    Array,
    Block,
    Case,
    Epoch,
    Jagged,
    Variant,
)
from storagering.testing.loading.mixing import buffered, read_later, spans
from storagering.testing.loading.source import STEP, source_files


def _native(array: Any) -> Array:
    found = np.asarray(array)
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def _stack(arrays: Any, names: tuple[str, ...]) -> Array:
    return _native(np.stack([np.asarray(arrays[name]) for name in names], axis=1))


def _lists(arrays: Any) -> Jagged:
    parts = [arrays[name].layout for name in PARTICLE_FEATURES]
    offsets = np.asarray(parts[0].offsets.data, np.int64)
    values = [np.asarray(part.content.data)[offsets[0] : offsets[-1]] for part in parts]
    return Jagged(_native(np.stack(values, axis=1)), offsets - offsets[0])


def open_chunks(case: Case) -> Epoch:
    """Blocks of a basket in random order over all files."""
    jagged = case.data == "w2"
    names = [*(PARTICLE_FEATURES + JET_FEATURES if jagged else FLAT_FEATURES), "label"]
    trees = [uproot.open({str(file): TREE}, object_cache=None, array_cache=None) for file in source_files(case)]
    step = STEP[case.data]
    places = [(tree, start, stop) for tree in trees for start, stop in spans(tree.num_entries, step)]

    def read(place: tuple[Any, int, int]) -> Block:
        tree, start, stop = place
        arrays = tree.arrays(names, entry_start=start, entry_stop=stop, library="ak" if jagged else "np")
        label = _native(arrays["label"])
        if jagged:
            return _lists(arrays), _stack(arrays, JET_FEATURES), label
        return _stack(arrays, FLAT_FEATURES), label

    return buffered(case, places, step, read_later(read))


VARIANTS: dict[str, Variant] = {"chunks": Variant(source_files, open_chunks)}
