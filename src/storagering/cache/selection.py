"""``where``, ``define`` and ``label`` of a conversion, applied to some entries of a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import awkward as ak
import numpy as np

from storagering.cache.entry_keys import ENTRY_ID
from storagering.formats.expressions import Expression, evaluate_mask, parse_expression
from storagering.types import Array, ConversionSpec

LABEL = "label"


def is_labelled(spec: ConversionSpec) -> bool:
    """Whether the sources say which class their entries belong to."""
    return any(label is not None for _, label in spec.sources)


def made_names(spec: ConversionSpec) -> tuple[str, ...]:
    """The columns that a build makes itself, for every entry."""
    return (LABEL,) * is_labelled(spec) + (ENTRY_ID,) * (spec.mix is not None)


class Selection:
    """The expressions of a spec, parsed once.

    Entries are selected first, so that ``where="num(Jet_pt) > 0"`` protects ``Jet_pt[:, 0]``; only the
    definitions that the selection itself uses see all entries. A definition hides a column of the source of
    the same name from the selection and from the definitions after it.

    Args:
        columns: names of the source's columns.

    Attributes:
        selects: whether there is a selection at all.
        source_names: columns of the source that the expressions need.
        early_names: those that the selection needs.

    Raises:
        SpecError: an expression is wrong.
    """

    def __init__(self, spec: ConversionSpec, columns: list[str]) -> None:
        known, self._define = list(columns), list[tuple[str, Expression]]()
        for name, text in spec.define:
            self._define.append((name, parse_expression(text, known)))
            known.append(name)
        self._where = parse_expression(spec.where, known) if spec.where is not None else None
        self.selects = self._where is not None
        self._early = self._numbers_for_selection(set(columns))
        needed = [n for _, e in self._define for n in e.names] + list(self._where.names if self._where else ())
        self.source_names = tuple(dict.fromkeys(n for n in needed if n in columns))
        early = {n for number in self._early for n in self._define[number][1].names}
        early.update(self._where.names if self._where else ())
        self.early_names = tuple(n for n in self.source_names if n in early)

    def _numbers_for_selection(self, columns: set[str]) -> set[int]:
        """The definitions that the selection uses; with one that hides a column all before it, which may mean that."""
        wanted, early = set(self._where.names if self._where else ()), set[int]()
        for number in reversed(range(len(self._define))):
            name, expression = self._define[number]
            if name in wanted:
                early.add(number)
                wanted = (wanted - {name}) | set(expression.names)
        hiding = max((n for n in early if self._define[n][0] in columns), default=-1)
        return early | set(range(hiding + 1))

    def keep(self, arrays: dict[str, Any]) -> tuple[dict[str, Any], Array | None]:
        """The arrays with the definitions that the selection uses, and the entries that it keeps (None: all).

        Args:
            arrays: at least the columns ``early_names``; if these are none, any column.

        Raises:
            SpecError: an expression cannot be evaluated on these columns.
        """
        columns = {name: ak.Array(array) for name, array in arrays.items()}
        if self._where is None:
            return columns, None
        for number, (name, expression) in enumerate(self._define):
            if number in self._early:
                columns[name] = expression.evaluate(columns)
        mask = evaluate_mask(self._where, columns)
        return columns, None if mask.all() else mask

    def complete(self, columns: dict[str, Any], made: Mapping[str, Array]) -> dict[str, Any]:
        """Selected entries with all that remains to be defined, and with what the build makes; raises as `keep`."""
        columns = dict(columns)
        for number, (name, expression) in enumerate(self._define):
            if number not in self._early:
                columns[name] = expression.evaluate(columns)
        return columns | {name: ak.Array(array) for name, array in made.items()}

    def apply(self, arrays: dict[str, Any], entries: int, made: Mapping[str, Array]) -> tuple[dict[str, Any], int]:
        """All columns, read, defined and made, of the selected entries; and how many these are.

        Args:
            made: what the build makes itself, for all entries.

        Raises:
            SpecError: an expression cannot be evaluated on these columns.
        """
        columns, mask = self.keep(arrays)
        if mask is not None:
            columns, entries = {name: array[mask] for name, array in columns.items()}, int(np.count_nonzero(mask))
            made = {name: array[mask] for name, array in made.items()}
        return self.complete(columns, made), entries
