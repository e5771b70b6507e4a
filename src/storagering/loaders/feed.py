"""What a batch shall hold: the columns asked for, as groups that become one array each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from storagering.errors import SchemaError, nearest_names
from storagering.types import Column, Schema

ColumnRequest = Sequence[str] | Mapping[str, str | Sequence[str]] | None


@dataclass(frozen=True, slots=True)
class Group:
    """Columns that come as one array under one key.

    Attributes:
        stacked: whether the columns stand side by side in a last axis of their own.
        jagged: whether every entry has its own number of rows.
        dtype: of the array; unsigned integers become signed ones that hold them, because frameworks
            have no use for the former, and a stack of several types becomes float32.
    """

    key: str
    columns: tuple[Column, ...]
    stacked: bool

    @property
    def jagged(self) -> bool:
        return self.columns[0].kind == "jagged"

    @property
    def sparse(self) -> bool:
        """Whether entries are stored as places and values; in a batch they are dense."""
        return self.columns[0].kind == "sparse"

    @property
    def dtype(self) -> np.dtype[np.generic]:
        found = {_tensor_dtype(np.dtype(c.parts[-1].dtype)) for c in self.columns}
        return found.pop() if len(found) == 1 else np.dtype(np.float32)

    @property
    def flat_items(self) -> bool:
        """Whether every column has one number an item."""
        return not self.columns[0].parts[-1].shape

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one entry, or of one item of a jagged one."""
        return (len(self.columns),) if self.stacked else self.columns[0].shape

    @property
    def places_dtype(self) -> np.dtype[np.generic]:
        """Type of the places of a sparse column's numbers."""
        return np.dtype(self.columns[0].parts[-2].dtype)

    @property
    def values_dtype(self) -> np.dtype[np.generic]:
        """Type of a sparse column's numbers, which get the array's when they are put into it."""
        return np.dtype(self.columns[0].parts[-1].dtype)


def _tensor_dtype(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    if dtype.kind != "u" or dtype.itemsize == 1:
        return dtype
    return np.dtype({2: np.int32, 4: np.int64, 8: np.int64}[dtype.itemsize])


def make_groups(schema: Schema, request: ColumnRequest) -> tuple[Group, ...]:
    """The groups of a request: None (all numeric columns), names, or {key: name or names}.

    Raises:
        SchemaError: an unknown column (lists the nearest names), one that no tensor can hold, or a
            group of columns that cannot be stacked.
    """
    if request is None:
        return tuple(Group(c.name, (c,), stacked=False) for c in schema.columns if c.is_numeric)
    if isinstance(request, str):
        raise SchemaError(f"columns={request!r}: give a list of names, or {{key: names}}")
    if not isinstance(request, Mapping):
        return tuple(Group(c.name, (_numeric(c),), stacked=False) for c in schema.select(request).columns)
    groups = []
    for key, names in request.items():
        single = isinstance(names, str)
        columns = schema.select([names] if isinstance(names, str) else names).columns
        groups.append(_check_stack(Group(key, tuple(_numeric(c) for c in columns), stacked=not single)))
    return tuple(groups)


def _numeric(column: Column) -> Column:
    if not column.is_numeric or np.dtype(column.parts[-1].dtype).kind not in "biuf":
        raise SchemaError(
            f"column {column.name!r} is {column.kind} ({column.dtype}): no tensor can hold it; "
            f"define a numeric column of it with 'storagering convert --define'"
        )
    return column


def _check_stack(group: Group) -> Group:
    if not group.columns:
        raise SchemaError(f"group {group.key!r} names no columns")
    if len({c.kind for c in group.columns}) > 1:
        kinds = ", ".join(f"{c.name} is {c.kind}" for c in group.columns)
        raise SchemaError(f"group {group.key!r} mixes kinds ({kinds}); put them in groups of their own")
    if group.stacked and any(c.shape for c in group.columns):
        raise SchemaError(f"group {group.key!r}: columns of fixed shape cannot be stacked; ask for each by itself")
    return group


def lead_columns(groups: Sequence[Group], lead: str | None) -> list[int | None]:
    """Per group the number of the column named ``lead``, None where it is not in it.

    Raises:
        SchemaError: no jagged group has it.
    """
    if lead is None:
        return [None] * len(groups)
    found = [[c.name for c in group.columns].index(lead) if _holds(group, lead) else None for group in groups]
    if found.count(None) == len(found):
        raise SchemaError(f"lead={lead!r} is in no group of jagged columns{nearest_names(lead, _jagged_names(groups))}")
    return found


def column_names(groups: Sequence[Group]) -> list[str]:
    """The columns of all groups."""
    return [column.name for group in groups for column in group.columns]


def _holds(group: Group, name: str) -> bool:
    return group.jagged and group.flat_items and name in [column.name for column in group.columns]


def _jagged_names(groups: Sequence[Group]) -> list[str]:
    return [column.name for group in groups if group.jagged for column in group.columns]
