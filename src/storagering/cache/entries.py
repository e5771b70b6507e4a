"""The way back from an entry of a dataset to the file that it was made from."""

from __future__ import annotations

import numpy as np

from storagering.cache.dataset import Dataset
from storagering.cache.entry_keys import ENTRY_ID, entry_ids_of, split_ids
from storagering.errors import SchemaError, SpecError
from storagering.types import Array, Manifest, SourceFile


def entry_ids(dataset: Dataset, start: int = 0, stop: int | None = None) -> Array:
    """The ids of entries ``start`` to ``stop`` of a dataset: for each the number of its source file in the manifest,
    times 2^40, plus the number of the entry in there.

    Returns:
        uint64, one per entry. Those of a mixed dataset are its column ``entry_id``; others follow from the manifest.

    Raises:
        SchemaError: the dataset is a selection that is not mixed, which does not keep them.
        SpecError: the range is not within the dataset.
    """
    manifest = dataset.manifest
    if manifest.spec.mix is not None:
        return np.asarray(dataset.arrays([ENTRY_ID], start, stop)[ENTRY_ID])
    if manifest.spec.where is not None:
        raise SchemaError(
            f"dataset {dataset.name!r} is a selection, of which it is not kept where its entries come from; "
            "convert it with --mix SEED, which keeps that"
        )
    stop = len(dataset) if stop is None else min(stop, len(dataset))
    if start < 0 or stop < 0:
        raise SpecError(f"entries {start} to {stop}: count from the start, the dataset has {len(dataset)}")
    found = [np.zeros(0, np.uint64)]
    for chunk in manifest.chunks:
        at = chunk.start
        for span in chunk.spans:
            low, high = max(start - at, 0), min(stop - at, span.stop - span.start)
            if low < high:
                found.append(entry_ids_of(span.source, span.start + low, span.start + high))
            at += span.stop - span.start
    return np.concatenate(found)


def locate_entry(manifest: Manifest, entry_id: int) -> tuple[SourceFile, int]:
    """The source file that an entry of that id comes from, and the entry's number in its tree.

    Raises:
        SpecError: there is no such source, or it has no such entry.
    """
    (source,), (entry,) = split_ids(np.array([entry_id], np.uint64)) if 0 <= entry_id < 1 << 63 else ([-1], [0])
    if not 0 <= source < len(manifest.sources) or entry >= manifest.sources[source].entries:
        raise SpecError(f"no entry of dataset {manifest.name!r} has the id {entry_id}")
    return manifest.sources[source], int(entry)
