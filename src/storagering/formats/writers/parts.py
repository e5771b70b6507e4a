"""The parts of any column as arrays that are laid end to end, batch after batch: how HDF5 and Zarr keep nested columns.

Lists are kept as counts, which need no correction; what points to places (missing values, unions) is moved
behind what was there before. The Awkward form beside them (`FORM`) tells how they belong together.
"""

from __future__ import annotations

import awkward as ak
import numpy as np

from storagering.types import Array, Column

#: Attribute of a group with the Awkward form, as JSON, of the column whose parts lie in it.
FORM = "storagering_form"


def is_nested(column: Column) -> bool:
    """Whether a column needs its form beside it: all but numbers, lists of numbers, and text."""
    if column.kind == "string":
        return bool(ak.forms.from_json(column.form).parameter("__array__") == "bytestring")
    return column.kind not in ("flat", "fixed-shape", "jagged")


def parts_refusal(column: Column) -> str:
    """Why a column cannot be kept as parts, '' if it can."""
    if not column.name:
        return "'' cannot be the name of a column there"
    return "" if column.parts else "records without fields have nothing that could be kept"


class PartsAppender:
    """The state that one nested column needs from batch to batch."""

    def __init__(self, column: Column) -> None:
        self._column = column
        self._before: dict[tuple[int, int], int] = {}

    def append(self, arrays: tuple[Array, ...]) -> list[Array]:
        """The parts of a batch, as they follow those of the batches before."""
        found: list[Array] = []
        tags: Array | None = None
        for number, (part, array) in enumerate(zip(self._column.parts, arrays, strict=True)):
            if part.role == "counts":
                found.append(np.diff(array))
            elif part.role == "index":
                found.append(self._moved(number, array, np.where(array < 0, -1, 0) if tags is None else tags))
            else:
                found.append(array)
            tags = array if part.role == "tags" else None
        return found

    def _moved(self, number: int, index: Array, tags: Array) -> Array:
        """Places behind those of earlier batches, for each content on its own; -1 stays."""
        moved = index.copy()
        for tag in np.unique(tags[tags >= 0]).tolist():
            chosen = tags == tag
            before = self._before.get((number, tag), 0)
            moved[chosen] += before
            self._before[number, tag] = before + int(np.count_nonzero(chosen))
        return moved
