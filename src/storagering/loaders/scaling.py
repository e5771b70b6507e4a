"""Standardisation: values of mean 0 and standard deviation 1, by the statistics that a dataset keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storagering.compiling import compiled
from storagering.errors import SpecError, nearest_names
from storagering.loaders.feed import Group
from storagering.types import Array, Manifest


@dataclass(frozen=True, slots=True)
class Scaling:
    """What becomes of the columns of a group: ``(value - mean) / std``.

    Attributes:
        mean: of the finite values of each column in the whole dataset; 0 if it has none.
        std: their standard deviation; 1 if there is none, or all values are the same.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, rows: Array) -> None:
        """Scale rows (n, ...) of the group, in place; NaN stays NaN."""
        mean, inverse = np.array(self.mean, rows.dtype), (1 / np.array(self.std)).astype(rows.dtype)
        scale(rows.reshape(-1, len(self.mean)), mean, inverse)


def find_scaling(groups: Sequence[Group], wanted: Sequence[str] | bool, manifest: Manifest) -> dict[str, Scaling]:
    """The scaling of the groups of these keys; True means all of floats that are not sparse.

    Raises:
        SpecError: there is no such group, or it holds no floats, or is sparse: its zeros are not stored.
    """
    floats = {group.key: group for group in groups if group.dtype.kind == "f" and not group.sparse}
    keys = list(floats) if wanted is True else list(wanted or ())
    statistics = dict(zip(manifest.schema.names, manifest.statistics, strict=True))
    found = {}
    for key in keys:
        if key not in floats:
            raise SpecError(
                f"standardise: there is no group {key!r} of floats that is not sparse{nearest_names(key, floats)}"
            )
        own = [statistics[column.name] for column in floats[key].columns]
        means = tuple(s.mean if s is not None and s.mean is not None else 0.0 for s in own)
        stds = tuple((s.std if s is not None else None) or 1.0 for s in own)
        found[key] = Scaling(means, stds)
    return found


@compiled
def scale(rows: Array, mean: Array, inverse: Array) -> None:
    """``(rows - mean) * inverse`` in place, for rows (n, F)."""
    for row in range(rows.shape[0]):
        for column in range(rows.shape[1]):
            rows[row, column] = (rows[row, column] - mean[column]) * inverse[column]
